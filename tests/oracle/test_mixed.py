"""Several rules in one model: exact features below a local head, modules, blocks, and feedback by connection."""

import copy
from pathlib import Path
from typing import Any

import kept
import numpy as np
import pytest
import textbook
import torch
from by_hand import (
    BOUND,
    DIRECT,
    WIDTHS,
    assert_equal,
    compile_mlp,
    grid,
    make_data,
    make_mlp,
    name_of,
    to_network,
    top_error,
)
from choose import one_each
from textbook import Array, Network
from torch import nn

import altprop
from altprop.rules.about import equation_of

pytestmark = pytest.mark.third


class Classifier(nn.Module):
    """Two convolutions, three fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


X = torch.linspace(-1.0, 1.0, 4 * 2 * 36, dtype=torch.float64).sin().reshape(4, 2, 6, 6)
LABELS = torch.tensor([0, 2, 1, 0])


def make_model() -> Classifier:
    torch.manual_seed(0)
    return Classifier().double()


def exact_below(model: Classifier, feedback: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DFA on the head, whose first local error goes on by autograd into the convolutions."""
    with torch.enable_grad():
        flat = model.features(X)
        flat.requires_grad_()
        h1 = model.classifier[0](flat)
        z1 = torch.tanh(h1)
        z2 = torch.tanh(model.classifier[2](z1))
        top = (torch.softmax(model.classifier[4](z2), 1) - nn.functional.one_hot(LABELS, 3)).detach()
        e1 = (top @ feedback["classifier.4->classifier.0"]) * (1 - z1.detach() ** 2)
        names = [name for name in dict(model.named_parameters()) if name.startswith(("features", "classifier.0"))]
        grads = torch.autograd.grad(h1, [model.get_parameter(n) for n in names], e1)
    return dict(zip(names, (g / len(X) for g in grads), strict=True))


@pytest.mark.parametrize("rule", ["globs", "dfa_head"])
def test_exact_features_below_a_direct_head(rule: str) -> None:
    """Han and Yoo: the head by DFA; its first local error, not the true one, goes on into the convolutions."""
    model = make_model()
    chosen = {"features.*": "bp", "classifier.*": "dfa"} if rule == "globs" else "dfa_head"
    net = kept.compile(model, chosen, example_inputs=(X,))
    expected = exact_below(model, {name: p.detach() for name, p in net.feedback.items()})
    net.backward(X, LABELS)
    for name, wanted in expected.items():
        found = model.get_parameter(name).grad
        assert found is not None
        assert float(wanted.abs().max()) > 1e-6
        assert float((found - wanted).abs().max()) <= BOUND, name
    table = net.explain()
    assert table["features.0.weight"].how == "backprop"
    assert table["features.2.weight"].connection == "classifier.0->features.2 (transpose)"
    assert table["classifier.0.weight"].how == "local-vjp"
    assert table["classifier.0.weight"].signal == "error of classifier.4"


@pytest.mark.parametrize("rule", ["globs", "dfa_head"])
def test_frozen_features(rule: str) -> None:
    """Crafton: features stay as they are."""
    model = make_model()
    chosen = {"features.*": "frozen", "*": "dfa"} if rule == "globs" else "dfa_head(features='frozen')"
    net = kept.compile(model, chosen, example_inputs=(X,))
    net.backward(X, LABELS)
    assert model.get_parameter("features.0.weight").grad is None
    assert model.get_parameter("classifier.0.weight").grad is not None
    assert net.explain()["features.0.weight"].how == "frozen"


def modular_by_hand(net: Network, x: Array, top: Array, inside: Array, scale: float) -> dict[str, Array]:
    """Layers 0 and 1 are a module, 2 is the last of its own: 2 <- output exactly, 1 <- 2 exactly, 0 <- 1 by B."""
    hs, zs = net.forward(x)
    e2 = (top @ net.weights[3]) * textbook.phi_prime(net.activation, hs[2])
    e1 = (e2 @ net.weights[2]) * textbook.phi_prime(net.activation, hs[1])
    e0 = (e1 @ inside) * textbook.phi_prime(net.activation, hs[0])
    return net.products(x, zs, [e0, e1, e2, top], scale)


@grid(together=1)
def test_modular(activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, "modular", loss, plan="modules(gap=2)")
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    ((name, inside),) = net.feedback.items()
    assert name == f"{name_of(1)}->{name_of(0)}"
    expected = modular_by_hand(network, x.numpy(), top, inside.detach().numpy(), scale)
    net.backward(x, target)
    grads = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    found = {f"{'W' if n.endswith('weight') else 'b'}{int(n.partition('.')[0]) // 2}": g for n, g in grads.items()}
    assert_equal(found, expected)


def test_kinds_by_connection_are_saved_and_loaded(tmp_path: Path) -> None:
    """Each connection has a kind and options of its own; from the plan's file the same updates come."""
    x, target = make_data("cross_entropy")
    model = make_mlp("tanh", True)
    kinds = [
        altprop.Feedback("sparse", {"nonzeros": 2, "scale": 2.0}),
        altprop.Feedback("binary"),
        altprop.Feedback("low_rank", {"rank": 2}, learning=True),
    ]
    links = [altprop.Connection(name_of(3), name_of(i), kind) for i, kind in enumerate(kinds)]
    rules = ("sdfa", "dfa", "dkp(weight_decay=0.1)", "bp")
    regions = tuple(altprop.RegionPlan(name_of(i), rule) for i, rule in enumerate(rules))
    plan = altprop.WiringPlan(regions, tuple(links))
    grads = []
    for suffix in (".json", ".graphml", ".txt"):
        plan.save(tmp_path / f"plan{suffix}")
        loaded = altprop.WiringPlan.load(tmp_path / f"plan{suffix}")
        assert loaded == plan
        copied = copy.deepcopy(model)
        net = compile_mlp(copied, "dfa", "cross_entropy", plan=loaded)
        net.backward(x, target)
        grads.append([p.grad.numpy() for p in copied.parameters()])  # type: ignore[union-attr]
        shown = str(net.explain())
        assert all(f"({kind.kind})" in shown for kind in kinds)
    assert all(np.array_equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))
    learned = [name for name, p in net.feedback.items() if p.requires_grad]
    assert learned == [f"{name_of(3)}->{name_of(2)}:left", f"{name_of(3)}->{name_of(2)}"]


WIRED: dict[str, tuple[Any, str | None]] = {
    "Han and Yoo": ({"0": "bp", "*": "dfa(kind='sparse', options={'nonzeros': 2})"}, None),
    "Crafton": ({"0": "frozen", "*": "dfa"}, None),
    "dfa_head": ("dfa_head(features='frozen')", None),
    "modular": ("modular(scale=0.5)", "modules(gap=2)"),
    "backprop inside": ("reclra(inner='backprop', beta=0.3)", "blocks(gap=2)"),
    "hebbian inside": ("reclra(inner='hebbian')", "blocks(gap=2)"),
    "rec-LRA inside": ("reclra(kappa={'0': 0.5}, mixed=0.2)", "recursive(depth=2, gap=2)"),
    "turns": ("hdfa(p=0.5, gamma=0.3)", None),
    "many": ({"0": "local_loss(beta=0.5)", "2": "drtp", "4": "dkp(weight_decay=0.1)", "*": "bp"}, None),
    "inverses": ("dtp(step=0.5, top='inverse')", None),
    "mirror": ({"0": "wm(noise=0.5)", "*": "lra_e(gamma=0.5)"}, None),
}


@pytest.mark.parametrize("name", WIRED)
def test_mixed_rules_are_saved_loaded_and_explained(name: str, tmp_path: Path) -> None:
    """The plan's file alone says what the rules and the plan's name said."""
    rule, plan = WIRED[name]
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.5)
    nets = [compile_mlp(make_mlp("tanh", True), rule, "cross_entropy", plan=plan, optimizer=optimizer)]
    for suffix in (".json", ".graphml", ".txt"):
        nets[0].plan.save(tmp_path / f"plan{suffix}")
        loaded = altprop.WiringPlan.load(tmp_path / f"plan{suffix}")
        assert loaded == nets[0].plan
    nets.append(compile_mlp(make_mlp("tanh", True), None, "cross_entropy", plan=loaded, optimizer=optimizer))
    for net in nets:
        for _ in range(3):
            net.step(*make_data("cross_entropy"))
    assert str(nets[0].explain()) == str(nets[1].explain())
    own = dict(nets[0].named_parameters())
    assert own.keys() == dict(nets[1].named_parameters()).keys()
    assert all(torch.equal(value, own[name]) for name, value in nets[1].named_parameters())
    rows = nets[0].explain().rows
    assert {row.rule for row in rows} == {region.rule for region in nets[0].plan.regions}
    assert all(f"{c.name} ({c.feedback.kind})" in str(nets[0].explain()) for c in nets[0].plan.connections)


ORDER = dict.fromkeys(DIRECT, len(WIDTHS) - 2)
OPTIONS = {
    "p=1, q=1": {"p": 1.0, "q": 1.0},
    "p=3, q=2": {"p": 3.0, "q": 2.0},
    "p=2, q=1, mixed=0.24": {"p": 2.0, "q": 1.0, "mixed": 0.24},
    "kappa=0.5, largest=0.05": {"kappa": 0.5, "largest": 0.05},
}


@pytest.mark.parametrize(("options", "activation"), one_each(OPTIONS, ["tanh", "elu", "sigmoid", "relu"]))
def test_total_discrepancy(options: str, activation: str) -> None:
    """rec-LRA with other norms, weights of regions, mixed error neurons and projected updates."""
    model = make_mlp(activation, True)
    network = to_network(model, activation)
    rule = f"reclra(beta=0.4, feedback_learning='hebbian', {options})"
    net = compile_mlp(model, rule, "cross_entropy")
    x, target = make_data("cross_entropy")
    feedback = {i: net.feedback[f"{name_of(j)}->{name_of(i)}"].detach().numpy().copy() for i, j in ORDER.items()}
    top, scale = top_error("cross_entropy", network.forward(x.numpy())[1][-1], target)
    set_ = {"p": 2.0, "q": 2.0, "mixed": 1.0, "kappa": 1.0, "largest": 0.0} | OPTIONS[options]
    hs, zs = network.forward(x.numpy())
    errors, moved = [], {}
    for i in DIRECT:
        d = top @ feedback[i]
        v = zs[i] - textbook.phi(activation, hs[i] - 0.4 * d)
        errors.append(textbook.discrepancy_error(v, set_["p"], set_["q"], set_["mixed"], set_["kappa"]))
        moved[i] = scale * top.T @ d
    expected = network.products(x.numpy(), zs, [*errors, top], scale)
    net.backward(x, target)
    for name, wanted in expected.items():
        layer = int(name[1])
        if set_["largest"] and layer < network.last:
            assert np.linalg.norm(wanted) > set_["largest"] or activation != "tanh" or name.startswith("b")
            wanted = textbook.project(wanted, set_["largest"])
        found = model.get_parameter(f"{name_of(layer)}.{'weight' if name[0] == 'W' else 'bias'}").grad
        assert found is not None
        assert np.abs(found.numpy() - wanted).max() <= BOUND, name
    for i, wanted in moved.items():
        wanted = textbook.project(wanted, set_["largest"]) if set_["largest"] else wanted
        own = net.feedback[f"{name_of(3)}->{name_of(i)}"].grad
        assert own is not None
        assert np.abs(own.numpy() - wanted).max() <= BOUND


def test_feedback_descends_along_the_discrepancy() -> None:
    """`dD/dE` against differences of `D = sum ||z - y||^2 / 2`, with the source's error held."""
    model = make_mlp("tanh", True)
    network = to_network(model, "tanh")
    net = compile_mlp(model, "reclra(beta=0.4, feedback_learning='discrepancy')", "cross_entropy_sum")
    x, target = make_data("cross_entropy_sum")
    hs, zs = network.forward(x.numpy())
    top, _ = top_error("cross_entropy_sum", zs[-1], target)
    net.backward(x, target)
    for i in DIRECT:
        own = net.feedback[f"{name_of(3)}->{name_of(i)}"]
        matrix = own.detach().numpy()

        def total(change: Array, i: int = i, matrix: Array = matrix) -> float:
            return float(((zs[i] - np.tanh(hs[i] - 0.4 * top @ (matrix + change))) ** 2).sum() / 2)

        assert own.grad is not None
        for place in [(0, 0), (2, 4), (1, 3)]:
            step = np.zeros_like(matrix)
            step[place] = 1e-5
            slope = (total(step) - total(-step)) / 2e-5
            assert abs(slope - float(own.grad[place])) < 1e-8


def test_kappa_by_region() -> None:
    model = make_mlp("tanh", True)
    plain = compile_mlp(copy.deepcopy(model), "reclra", "mse")
    rule = f"reclra(kappa={{'{name_of(1)}': 0.25}})"
    weighted = compile_mlp(copy.deepcopy(model), rule, "mse")
    grads = []
    for net in (plain, weighted):
        net.backward(*make_data("mse"))
        grads.append({name: p.grad for name, p in net.model.named_parameters()})
    for name, grad in grads[0].items():
        factor = 0.25 if name.startswith(name_of(1)) else 1.0
        assert grad is not None
        assert torch.allclose(grads[1][name], factor * grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_hebbian_inside_blocks(activation: str) -> None:
    """No error pathway inside: the region's own activity and input move it, by Oja's rule."""
    model = make_mlp(activation, True)
    network = to_network(model, activation)
    net = compile_mlp(model, "reclra(inner='hebbian')", "cross_entropy", plan="blocks(gap=2)")
    assert list(net.feedback) == [f"{name_of(3)}->{name_of(2)}", f"{name_of(3)}->{name_of(1)}"]
    x, target = make_data("cross_entropy")
    z = network.forward(x.numpy())[1][0]
    assert ((z**2).mean(0).max() > 1) == (activation == "relu")
    weight, bias = textbook.oja(network.weights[0], network.biases[0], x.numpy(), z, 1.0)
    net.backward(x, target)
    layer = model[0]
    assert isinstance(layer, nn.Linear)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert np.abs(layer.weight.grad.numpy() - weight / len(x)).max() <= BOUND
    assert np.abs(layer.bias.grad.numpy() - bias / len(x)).max() <= BOUND
    assert net.explain()[f"{name_of(0)}.weight"].signal == ""


def test_hebbian_weights_stay_bounded() -> None:
    """Large inputs and units that do not saturate: Oja's decay alone would overshoot, further at every step."""
    model = make_mlp("relu", True)
    net = compile_mlp(
        model,
        "reclra(inner='hebbian')",
        "cross_entropy",
        plan="blocks(gap=2)",
        optimizer=altprop.optim.SGD(lr=0.5, feedback_lr=0.0),
    )
    x, target = make_data("cross_entropy")
    for _ in range(30):
        net.step(10 * x, target)
    weight = model.get_parameter(f"{name_of(0)}.weight")
    assert float(weight.detach().norm(dim=1).max()) <= float((10 * x).norm(dim=1).max()) + 1


def test_shares_of_mixed_error_neurons_by_region() -> None:
    """One share where a skip-error connection ends, another where a neighbour is heard."""
    x, target = make_data("cross_entropy")
    rule = "reclra(beta=0.4, feedback_learning='fixed', mixed={%s})"
    by_region = f"'{name_of(0)}': 0.24, '*': 0.19"
    grads = []
    for shares in (by_region, "'*': 0.24", "'*': 0.19"):
        model = make_mlp("tanh", True)
        net = compile_mlp(model, rule % shares, "cross_entropy", plan="blocks(gap=2)")
        net.backward(x, target)
        grads.append([model.get_parameter(f"{name_of(layer)}.weight").grad for layer in (0, 2)])
    assert torch.equal(grads[0][1], grads[2][1])  # type: ignore[arg-type]
    assert not torch.equal(grads[0][1], grads[1][1])  # type: ignore[arg-type]
    assert not torch.equal(grads[0][0], grads[2][0])  # type: ignore[arg-type]
    text = equation_of(altprop.rules.get(rule % by_region))
    assert "+ (1 - a) sign(v), a = {" in text


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("reclra(p=0.5)", "p is 1 or more"),
        ("reclra(mixed=2)", "mixed=2; it is a share"),
        ("reclra(mixed={'*': 2})", "it is a share"),
        ("reclra(largest=-1)", "largest=-1; it is 0 or more"),
        ("reclra(inner='dfa')", 'inner="dfa"; choose from'),
        ("dfa_head(features='dfa')", 'features="dfa"; choose "bp" or "frozen"'),
    ],
)
def test_wrong_options_are_refused(rule: str, message: str) -> None:
    with pytest.raises(altprop.RuleError, match=message):
        altprop.rules.get(rule)


def test_prints_of_the_discrepancy() -> None:
    rule = altprop.rules.get("reclra(p=1.0, q=1.0, mixed=0.2)")
    assert equation_of(rule).endswith("+ 0.8 sign(v), v = z - phi(h - 0.1 d)")
    assert altprop.rules.get(str(rule)) == rule
    assert "frozen" not in altprop.rules.available()
    assert "hebbian" not in altprop.rules.available()
