"""The evolution strategy, beside a textbook in NumPy that gets the same noise."""

import copy

import kept
import numpy as np
import pytest
import torch
from torch import nn

import altprop
from altprop.ir.program import Slot
from altprop.rules import population
from altprop.runtime.noise import Noise, noise_forms

pytestmark = pytest.mark.third


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch(samples: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 9, generator=generator).double()
    return x, torch.randn(samples, 3, generator=generator).double()


def compiled(model: nn.Module, rule: str, **options: object) -> altprop.LocalNet:
    example = (batch()[0][:2],)
    return kept.compile(model, rule=rule, **{"loss": "mse", "example_inputs": example, "seed": 5, **options})


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def noise_of(net: altprop.LocalNet, region: str) -> list[np.ndarray]:
    """What the net's next step draws: a, (pairs, units), and b, (pairs, inputs and a one)."""
    drawn = Noise(5).draw(noise_forms(net.graph), 20, torch.device("cpu"))
    return [numpy(drawn[Slot("noise", f"{region}:drawn:{number}")]) for number in range(2)]


def ranks(values: np.ndarray) -> np.ndarray:
    """From -1/2 to 1/2; ties share the mean of their places."""
    ordered = np.sort(values)
    places = [np.flatnonzero(ordered == value).mean() for value in values]
    return np.array(places) / (len(values) - 1) - 0.5


@pytest.mark.parametrize(("credit", "shaping"), [("unit", "none"), ("region", "none"), ("unit", "rank")])
def test_each_unit_is_judged_by_its_own_distance(credit, shaping):
    model, (x, y) = mlp(), batch()
    rule = f"es(members=12, sigma=0.3, target='reclra(beta=0.5)', credit='{credit}', shaping='{shaping}')"
    net = compiled(model, rule)
    expected_noise = {name: noise_of(net, name) for name in ("0", "2")}
    net.backward(x, y)
    h = numpy(model[0](x))
    z, out = np.tanh(h), numpy(model(x))
    e_output = 2 * (out - numpy(y)) / 3
    d = e_output @ numpy(net.feedback["2->0"])
    layers = {"0": (numpy(x), h, z - np.tanh(h - 0.5 * d), np.tanh), "2": (z, out, e_output, lambda value: value)}
    for name, (inputs, h, e, phi) in layers.items():
        a, b = expected_noise[name]
        ones = np.hstack([inputs, np.ones((len(inputs), 1))])
        t = phi(h) - e
        expected = np.zeros((h.shape[1], ones.shape[1]))
        fitness = np.zeros((12, h.shape[1]))
        for m in range(6):
            change = 0.3 * np.outer(a[m], b[m])
            for sign, row in ((1, m), (-1, 6 + m)):
                fitness[row] = np.square(phi(h + sign * ones @ change.T) - t).sum(0) / 2
        if credit == "region":
            fitness[:] = fitness.sum(1, keepdims=True)
        if shaping == "rank":
            fitness = np.stack([ranks(column) for column in fitness.T], 1)
        for m in range(6):
            weight = (fitness[m] - fitness[6 + m]) / 0.6
            expected += (weight * a[m])[:, None] * b[m] / 6
        if shaping == "none":
            expected /= len(x)
        layer = model[int(name)]
        made = np.hstack([numpy(layer.weight.grad), numpy(layer.bias.grad)[:, None]])
        assert made == pytest.approx(expected, abs=1e-10)


def test_a_unit_hears_of_no_other():
    """With the same noise a unit moves, to the bit, as if the others had other targets."""
    model, (x, y) = nn.Sequential(nn.Linear(9, 5)).double(), batch()
    targets = torch.cat([y, y[:, :2]], 1)
    net, found = compiled(model, "es(members=8)"), []
    for change in (0.0, 3.0):
        one = copy.deepcopy(net)
        one.backward(x, torch.cat([targets[:, :1], targets[:, 1:] + change], 1))
        found.append(one.model[0])
    assert torch.equal(found[0].weight.grad[0], found[1].weight.grad[0])
    assert torch.equal(found[0].bias.grad[0], found[1].bias.grad[0])
    assert not torch.equal(found[0].weight.grad[1:], found[1].weight.grad[1:])


def test_many_members_find_the_gradient():
    """On squares, where what is smoothed over `sigma` has the same gradient."""
    torch.manual_seed(0)
    x, y = batch(4)[0], torch.randn(4, 64).double()
    model = nn.Sequential(nn.Linear(9, 64)).double()
    net = compiled(model, "es(members=6400, sigma=0.5, shaping='none')")
    net.backward(x, y)
    made = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    true = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.cosine_similarity(made, true, 0) > 0.99
    assert made @ true / true.square().sum() == pytest.approx(1, abs=0.03)


def test_where_nothing_differs_nothing_moves():
    """A constant fitness: threshold units far from their threshold."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), altprop.nn.Heaviside(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        model[0].bias.fill_(1e6)
    net = compiled(model, "es")
    net.backward(*batch())
    assert model[0].weight.grad.count_nonzero() == 0
    assert model[2].weight.grad.count_nonzero() > 0


def test_ties_have_the_mean_of_their_ranks():
    assert population.ranks(torch.tensor([[3.0], [2.0], [1.0], [2.0]])).flatten().tolist() == [3.0, 1.5, 0.0, 1.5]


def test_refusals():
    with pytest.raises(altprop.RuleError, match="members is even"):
        altprop.rules.get("es(members=3)")
    with pytest.raises(altprop.RuleError, match='credit is "unit" or "region"'):
        altprop.rules.get("es(credit='layer')")
    flat = nn.Sequential(nn.Linear(9, 7), altprop.nn.Heaviside(), nn.Linear(7, 3)).double()
    with pytest.raises(altprop.RuleError, match=r'activation "[a-z]+", whose derivative is zero'):
        compiled(flat, "es(target='dfa')")


@pytest.mark.parametrize("shaping", ["none", "rank"])
def test_units_that_share_parameters_share_a_fitness(shaping):
    """A norm behind the layer: each member is run, by torch itself here."""
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(9, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3)).double(), batch()
    net = compiled(model, f"es(members=6, sigma=0.3, target='reclra(beta=0.5)', shaping='{shaping}')")
    drawn = Noise(5).draw(noise_forms(net.graph), 20, torch.device("cpu"))[Slot("noise", "0:drawn:0")]
    net.backward(x, y)
    layer, parameters = model[:2], dict(model[:2].named_parameters())
    present = torch.cat([p.reshape(7, -1) for p in parameters.values()], 1).detach()
    d = 2 * (model(x) - y).detach() / 3 @ net.feedback["3->0"].detach()
    t = torch.tanh(layer(x).detach() - 0.5 * d)

    def fitness(change: torch.Tensor) -> float:
        parts = (present + change).split([9, 1, 1, 1], 1)
        moved = {name: part.reshape(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}
        return float((torch.tanh(torch.func.functional_call(layer, moved, (x,))) - t).square().sum() / 2)

    found = np.array([fitness(sign * 0.3 * s) for sign in (1, -1) for s in drawn])
    found = ranks(found) if shaping == "rank" else found / len(x)
    weights = torch.tensor((found[:3] - found[3:]) / 0.6)
    expected = (weights.view(-1, 1, 1) * drawn).mean(0)
    made = torch.cat([p.grad.reshape(7, -1) for p in parameters.values()], 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["snes(members=4)", "ga(members=4, elite=1, parents=2)"])
def test_parameters_of_several_sizes_are_one_row(rule):
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (3, 3)), nn.Linear(3, 4), attention, nn.Flatten(), nn.Linear(12, 3)).double()
    net = compiled(model, {"2.self_attn*": rule, "*": "reclra"}, optimizer=altprop.optim.SGD(lr=1.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for samples in (20, 6):
        assert net.step(*(one[:samples] for one in batch())).isfinite()
    assert all((p != before[name]).any() for name, p in model.named_parameters())
