"""Images laid out channels last: the same step, and no message across the grain of its readers."""

import copy
from typing import Any

import kept
import pytest
import tiny
import torch
from choose import one_each
from torch import nn
from zoo import ZOO
from zoo_cases import Case

import altprop
from altprop.ir.aliases import has_gaps
from altprop.ir.program import Program
from altprop.passes.tune import channels_last
from altprop.runtime.bindings import Bindings

pytestmark = pytest.mark.third

aten = torch.ops.aten
CASES = ("conv_bn_dropout", "conv_variety", "conv_transposed", "conv1d", "conv3d", "dense_prediction")
# Where a message meets an activity: `e B * phi'(h)`, `h - beta d`, `z - y`.
JOINS = (aten.threshold_backward.default, aten.threshold_backward.grad_input, aten.sub.Tensor, aten.sub_.Tensor)
JOINS += (aten.sub.out,)
KINDS = ("dense", "channel", "unified", "sparse", "binary")


def lay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lays out what is compiled from now on, in float64 too, which is not oneDNN's."""
    monkeypatch.setattr(channels_last, "layout_pays", lambda graph: bool(channels_last._convolutions(graph)))


def make(case: Case, rule: str, **options: Any) -> altprop.LocalNet:
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.1, momentum=0.9))
    torch.manual_seed(0)
    net = kept.compile(case.model(), rule, example_inputs=case.inputs(4), loss=case.loss, seed=0, **options)
    dict(net.graph.programs)  # laid out as things stand now
    return net


def train(net: altprop.LocalNet, case: Case, steps: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(1)
    inputs = case.inputs(4)
    return [net.step(inputs, case.target(4)) for _ in range(steps)]


def assert_same_training(one: altprop.LocalNet, other: altprop.LocalNet, case: Case) -> None:
    assert torch.allclose(torch.stack(train(one, case)), torch.stack(train(other, case)), rtol=1e-9)
    expected = other.state_dict()
    for key, value in one.state_dict().items():
        assert torch.allclose(value, expected[key], rtol=1e-7, atol=1e-9), key


def meetings(program: Program, inputs: list[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The pairs of images that an elementwise operator joins, as they come when the program runs."""
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            if n.target in JOINS:
                seen.append((self.env[n.args[0]], self.env[n.args[1]]))  # type: ignore[index]
            return super().run_node(n)

    Watch(program.graph).run(*inputs)
    return [pair for pair in seen if all(value.dim() == 4 for value in pair)]


@pytest.mark.parametrize(("name", "rule"), one_each(CASES, ["bp", "reclra"]))
def test_laid_out_program_trains_alike(name: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ZOO[name]
    plain = make(case, rule)
    lay_out(monkeypatch)
    laid = make(case, rule)
    assert ("channels_last" in str(laid.graph.programs["step"])) is (name != "conv1d")
    assert "channels_last" not in str(plain.graph.programs["step"])
    assert_same_training(laid, plain, case)


@pytest.mark.parametrize("kind", KINDS)
def test_laid_out_program_trains_alike_with_feedback(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ZOO["conv_bn_dropout"]
    rule = f'dfa(kind="{kind}")'
    plain = make(case, rule)
    lay_out(monkeypatch)
    assert_same_training(make(case, rule), plain, case)


@pytest.mark.parametrize("name", ["conv_bn_dropout", "dense_prediction"])
def test_results_keep_the_layout_of_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(monkeypatch)
    case = ZOO[name]
    net = make(case, "dfa", optimizer=None)
    assert "channels_last" in str(net.graph.programs["backward"])
    net.backward(case.inputs(4), case.target(4))
    assert all(p.grad is None or p.grad.is_contiguous() for p in net.model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_traced_values_have_the_strides_of_the_real_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that writes in place reads them."""
    lay_out(monkeypatch)
    case = ZOO[name]
    net = make(case, "reclra")
    program = net.graph.programs["step"]
    wrong = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value, traced = super().run_node(n), n.meta.get("val")
            if isinstance(value, torch.Tensor) and isinstance(traced, torch.Tensor) and not has_gaps(n):
                strides = zip(value.shape, value.stride(), map(int, traced.stride()), strict=True)
                fits = value.dim() < 4 or all(size == 1 or real == seen for size, real, seen in strides)
                wrong.extend([] if fits else [n.format_node()])
            return value

    bindings = Bindings(net.model, net.feedback, net.state, net.graph.captured.constants)
    given = {"input": case.inputs(4)[0], "target": case.target(4), "scalar": 0.1}
    args = [given[slot.kind] if slot.kind in given else bindings.get(slot) for slot in program.inputs]
    with torch.no_grad():
        Watch(program.graph).run(*args)
    assert not wrong


def test_feedback_is_stored_as_its_products_read_it() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    net, dense = (
        kept.compile(tiny.Residual(), "reclra", example_inputs=(x,), optimizer=optimizer, seed=0, backend=backend)
        for backend in ("eager", "onnxruntime")
    )
    images = {name: value for name, value in net.feedback.items() if value.dim() == 4}
    assert images
    for name, value in images.items():
        assert value.is_contiguous(memory_format=torch.channels_last), name
        assert net.state[f"momentum:{name}"].stride() == value.stride(), name
        assert dense.feedback[name].is_contiguous(), name
        assert torch.equal(value, dense.feedback[name]), name
    copied = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.target is aten.permute.default and n.args[0].op == "placeholder":  # type: ignore[union-attr]
                copied.extend(user for user in n.users if not value.is_contiguous())
            return value

    program = net.graph.programs["step"]
    bindings = Bindings(net.model, net.feedback, net.state, net.graph.captured.constants)
    given = {"input": x, "target": y, "scalar": 0.1}
    with torch.no_grad():
        Watch(program.graph).run(*[given[s.kind] if s.kind in given else bindings.get(s) for s in program.inputs])
    assert not copied


def test_other_programs_take_feedback_as_it_is_stored() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
    model = tiny.Residual()
    nets = [
        kept.compile(copy.deepcopy(model), "dfa", example_inputs=(x,), optimizer=altprop.optim.SGD(lr=0.1), seed=0)
        for _ in range(2)
    ]
    with torch.no_grad():
        for value in nets[1].feedback.values():
            value.data = value.data.contiguous()
    assert any(not value.is_contiguous() for value in nets[0].feedback.values())
    found = []
    for net in nets:
        net.measure(x, y)
        nn.functional.cross_entropy(net(x), y).backward()
        found.append([p.grad for p in net.model.parameters()])
        net.double()
        found[-1] += [net.step(x.double(), y), *net.model.parameters()]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_large_filters_are_not_laid_out() -> None:
    """They would be turned over at every step."""
    x = torch.randn(4, 64, 4, 4)
    for size, expected in ((4, False), (64, True)):
        net = kept.compile(
            nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * size * size, 5)),
            "dfa",
            example_inputs=(x if size == 4 else torch.randn(8, 64, size, size),),
        )
        assert ("channels_last" in str(net.graph.programs["backward"])) is expected
        assert "channels_last" not in str(net.graph.programs["forward"])


@pytest.mark.parametrize("rule", ["bp", "drtp", "reclra"])
@pytest.mark.parametrize("name", ["conv_bn_dropout"])
def test_model_that_is_channels_last(name: str, rule: str) -> None:
    case = ZOO[name]
    model = case.model().to(memory_format=torch.channels_last)
    inputs = tuple(x.contiguous(memory_format=torch.channels_last) for x in case.inputs(4))
    options: dict[str, Any] = {"optimizer": altprop.optim.SGD(lr=0.1, momentum=0.9), "loss": case.loss, "seed": 0}
    net = kept.compile(copy.deepcopy(model), rule, example_inputs=inputs, **options)
    torch.manual_seed(1)
    expected = model(*inputs)
    torch.manual_seed(1)
    assert torch.equal(net(*inputs), expected)
    fresh = kept.compile(case.model().to(memory_format=torch.channels_last), rule, example_inputs=inputs, **options)
    assert_same_training(fresh, make(case, rule), case)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
def test_messages_meet_their_activities_in_one_layout(rule: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 16, 5)),
    ).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    net = kept.compile(model, rule, example_inputs=(x,))
    program = net.graph.programs["backward"]
    holders = {"parameter": model.get_parameter, "buffer": model.get_buffer, "feedback": net.feedback.__getitem__}
    target = torch.randint(0, 5, (4,))
    inputs = [
        holders[slot.kind](slot.name) if slot.kind in holders else x if slot.kind == "input" else target
        for slot in program.inputs
    ]
    seen = meetings(program, [value.detach().clone() for value in inputs])
    assert len(seen) == (2 if rule == "dfa" else 4)
    for message, activity in seen:
        assert message.stride()[1:] == activity.stride()[1:]  # rows of a joined product have gaps between them


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.full
def test_inductor_trains_a_convolutional_net_alike() -> None:
    case = ZOO["conv_bn_dropout"]
    nets = [
        kept.compile(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)),
            "reclra",
            example_inputs=tuple(x.float() for x in case.inputs(4)),
            optimizer=altprop.optim.SGD(lr=0.01, momentum=0.9),
            backend=backend,
            seed=0,
        )
        for backend in ("inductor", "eager")
        if torch.manual_seed(0)
    ]
    x = case.inputs(4)[0].float()
    for size in (4, 4, 3):
        one, other = (net.step(x[:size], case.target(4)[:size]) for net in nets)
        assert torch.allclose(one, other, atol=1e-5)
    for key, value in nets[0].state_dict().items():
        assert torch.allclose(value, nets[1].state_dict()[key], atol=1e-5), key
