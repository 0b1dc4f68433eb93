"""What is derived once serves later compilations: of like regions, in a process, and of no others."""

import dataclasses
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import altprop
from altprop.compiler.capture.shared_fakes import move_home
from altprop.ir.fakes import Fakes
from altprop.ir.forms import Forms
from altprop.ir.local import BODY, PARAMETERS, PHI, TAIL
from altprop.ir.on_demand import OnDemand

pytestmark = pytest.mark.third

X = torch.linspace(-1, 1, 42, dtype=torch.float64).reshape(6, 7)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture(autouse=True)
def no_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altprop.compiler.capture.shared_fakes._HOMES", {})


def build(width: int = 5, depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(7, width), nn.Tanh()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 3)).double()


def traced(caplog: pytest.LogCaptureFixture, model: nn.Module, rule: object = "dfa", x: torch.Tensor = X) -> list[int]:
    """How many regions and how many updates a compilation traced."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "altprop"):
        altprop.compile(model, rule, example_inputs=(x,))  # type: ignore[arg-type]
    lines = [record.getMessage() for record in caplog.records if "of them traced" in record.getMessage()]
    return [int(line.rpartition(", ")[2].split()[0]) for line in lines]


def test_the_second_compilation_derives_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert traced(caplog, build()) == [3, 3]
    assert traced(caplog, build()) == [0, 0]


def test_a_deeper_model_derives_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    traced(caplog, build())
    assert traced(caplog, build(depth=4)) == [0, 0]  # its middle layers are like the one that was there
    assert traced(caplog, build(width=6)) == [3, 3]


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra", "dtp"])
def test_what_was_kept_moves_parameters_to_the_same_bits(rule: str) -> None:
    moved = []
    for _ in range(2):
        model = build()
        altprop.compile(model, rule, example_inputs=(X,)).backward(X[:4], Y[:4])
        moved.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*moved, strict=True))


def test_numbers_and_casts_that_traces_depend_on_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    traced(caplog, build())
    torch.set_default_dtype(torch.float64)
    try:
        assert traced(caplog, build()) == [3, 3]
    finally:
        torch.set_default_dtype(torch.float32)
    x = X.float()
    assert traced(caplog, build().float(), x=x) == [3, 3]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert traced(caplog, build().float(), x=x) == [3, 3]


def test_kernels_that_a_trace_chooses_from_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    traced(caplog, build())
    with sdpa_kernel(SDPBackend.MATH):
        assert traced(caplog, build()) == [3, 3]


@dataclasses.dataclass
class Weighted:
    """A user's loss, which has no hash, as data classes have none, and a number that changes."""

    weight: float

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.weight * nn.functional.cross_entropy(output, target)


def test_a_users_loss_is_read_at_each_compilation() -> None:
    """`local_loss` takes the loss of predictions of its own: what was traced with one weight is not that of another."""

    def gradient(loss: Weighted) -> torch.Tensor:
        model = build(depth=1)
        altprop.compile(model, "local_loss", example_inputs=(X,), loss=loss).backward(X, Y)
        return model[0].weight.grad

    loss = Weighted(1.0)
    before = gradient(loss)
    loss.weight = 3.0
    assert torch.equal(gradient(loss), gradient(Weighted(3.0)))
    assert not torch.allclose(gradient(loss), before)


def test_a_users_rule_is_traced_at_each_compilation(caplog: pytest.LogCaptureFixture) -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(altprop.rules.get("dfa").__class__):  # type: ignore[misc]
        """Reads what it likes."""

    assert traced(caplog, build(), Mine()) == [3, 3]
    assert traced(caplog, build(), Mine()) == [0, 2]  # the output follows a rule of the library's


class Pairs(nn.Module):
    """Teaches the mode that its batch is even."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(7, 5).double(), nn.Linear(10, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.fc(x)).reshape(-1, 10)).repeat_interleave(2, 0)


def test_what_one_model_teaches_of_the_batch_does_not_reach_the_next() -> None:
    altprop.compile(Pairs(), "bp", example_inputs=(X,)).backward(X, Y)
    net = altprop.compile(build(), "bp", example_inputs=(X,))
    net.backward(X[:3], Y[:3])  # an odd batch
    reference = build()
    nn.functional.cross_entropy(reference(X[:3]), Y[:3]).backward()
    for one, other in zip(net.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-12)


def home_and_batch() -> Iterator[object]:
    fakes = Fakes.fresh(6)
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    with fakes.mode:
        node.meta["val"] = torch.empty(fakes.batch, 7)
    yield move_home(graph, fakes.batch)
    yield node.meta["val"]


def test_a_home_answers_by_its_example_and_learns_nothing() -> None:
    first, value = home_and_batch()
    assert bool(first.batch < 16)
    assert bool(first.batch == 6)
    assert not first.batch.node.expr.is_number
    assert str(value.shape[0]) == str(first.batch)
    assert "15" not in str(first.mode.shape_env.var_to_range)
    again, _ = home_and_batch()
    assert again is first


def test_what_holds_for_some_batches_alone_is_not_kept_by_form() -> None:
    def by_length(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return y.square().sum() / len(y)

    captured = altprop.capture(build(), X)
    altprop.compile(captured, "bp").backward(X, Y)
    assert captured.graph.forms.find("local", 0) is None
    assert len(captured.graph.forms)
    altprop.compile(captured, "bp", loss=by_length).backward(X, Y)
    assert not len(captured.graph.forms)


def test_forms_are_bounded_and_the_oldest_goes_first() -> None:
    forms = Forms(most=2)
    forms.add("local", 1, "one")
    forms.add("local", 2, "two")
    assert forms.find("local", 1) == "one"
    forms.add("local", 3, "three")
    assert (len(forms), forms.find("local", 2), forms.find("local", 1)) == (2, None, "one")


def test_values_on_demand_are_made_once() -> None:
    made: list[str] = []
    values = OnDemand({"a": lambda: made.append("a") or "x"}).changed(lambda name, value: value + name)
    values = values.joined(OnDemand.of({"a": "z"}), "~")
    assert ("a" in values, "b" in values, list(values), made) == (True, False, ["a", "a~"], [])
    assert (values["a"], values["a"], values["a~"], made) == ("xa", "xa", "z", ["a"])


# Products


def products(net: altprop.LocalNet) -> dict[str, frozenset[str]]:
    return {name: local.products for name, local in net.graph.locals.items()}


def test_only_the_products_that_the_wiring_reads_are_traced() -> None:
    model = build()
    assert products(altprop.compile(model, "dfa", example_inputs=(X,))) == {
        "0": {PARAMETERS, PHI},
        "2": {PARAMETERS, PHI},
        "4": {PARAMETERS, PHI, TAIL},
    }
    assert products(altprop.compile(model, "bp", example_inputs=(X,)))["2"] == {PARAMETERS, PHI, TAIL, BODY}


def test_a_rule_that_reads_another_product_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    @dataclasses.dataclass(frozen=True)
    class Curious(altprop.rules.get("reclra").__class__):  # type: ignore[misc]
        """Says that it needs no derivative, and takes one."""

        def error(self, local, d):  # type: ignore[no-untyped-def]
            return local.phi_vjp(d)

    net = altprop.compile(build(), Curious(), plan="direct", example_inputs=(X,))
    assert all(PHI in found for found in products(net).values())
    net.backward(X, Y)
    assert all(parameter.grad is not None for parameter in net.model.parameters())


class Stepped(nn.Module):
    """An operator without a derivative behind the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(7, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        return self.out(torch.special.zeta(h.abs() + 2, 1.0))


def test_an_operator_without_derivative_compiles_where_no_rule_reads_it() -> None:
    net = altprop.compile(Stepped(), "reclra", plan="direct", example_inputs=(X,))
    net.backward(X, Y)
    assert all(parameter.grad is not None for parameter in net.model.parameters())
    with pytest.raises(altprop.CompileError, match='region "fc" cannot be differentiated locally'):
        altprop.compile(Stepped(), "bp", example_inputs=(X,))


def test_examine_says_which_rules_an_operator_without_derivative_leaves() -> None:
    report = altprop.examine(Stepped(), (X,))
    assert report.ok
    assert "such as reclra on plan='direct'" in str(report)
