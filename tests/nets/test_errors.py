"""Every message on bad input: what is wrong, where, and what to do instead."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from zoo_small import mlp

import altprop

X = torch.randn(4, 7)
Y = torch.randint(3, (4,))


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp(nn.Tanh)


def compiled(rule: Any = "dfa", model: nn.Module | None = None, **options: Any) -> altprop.LocalNet:
    options.setdefault("example_inputs", (X,))
    return altprop.compile(model or make_model(), rule, **options)


# What one asks for

OPTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "rule": (lambda: compiled("dfaa"), r'there is no rule "dfaa"; there are .*bp, .*dfa, .*reclra'),
    "option": (lambda: compiled("dfa(gain=2)"), r'rule "dfa" has no option "gain"; its options are: .*scale'),
    "text": (lambda: compiled("dfa(scale="), r"does not read as a rule; write name\(option=value"),
    "code": (lambda: compiled("dfa(scale=open('x'))"), r"open\('x'\) is not a plain value"),
    "positional": (lambda: compiled("dfa(2)"), "does not read as a rule"),
    "learning": (lambda: compiled("reclra(feedback_learning='no')"), 'feedback_learning="no"; choose from'),
    "inner": (lambda: compiled("reclra(inner='dfa')"), 'inner="dfa"; choose from .*backprop'),
    "rules": (lambda: compiled({}), r"rule=\{\}: give at least one glob"),
    "glob": (lambda: compiled({"2": "dfa"}), 'no rule is given for region "0"; add a glob'),
    "plan": (lambda: compiled(plan="tree"), 'there is no plan "tree"; there are chain, direct, blocks'),
    "gap": (lambda: compiled(plan="chain(gap=3)"), 'there is no plan "chain'),
    "wiring": (lambda: compiled("fa", plan="direct"), r'rule "fa" sends errors backwards .* use plan="chain"'),
    "kind": (lambda: compiled("dfa(kind='full')"), 'there is no kind "full"; there are dense, position'),
    "distribution": (lambda: compiled("dfa(distribution='cauchy')"), 'distribution "cauchy": choose from'),
    "loss": (lambda: compiled(loss="hinge"), 'there is no loss "hinge"; there are cross_entropy'),
    "callable": (lambda: compiled(loss=3), "loss=3 is neither a name nor a callable"),
    "reduction": (
        lambda: compiled(loss=nn.CrossEntropyLoss(reduction="none")),
        'reduction="none"; it must return a scalar',
    ),
    "backend": (lambda: compiled(backend="tpu"), 'backend="tpu": there are eager, inductor'),
    "regions": (lambda: compiled(regions="neuron"), 'regions="neuron" is neither one of "layer", "operator", "block"'),
    "globs": (lambda: compiled(regions=["nothing*"]), r'glob "nothing\*" matches no module'),
    "blocks": (lambda: compiled(regions="block"), "the model has no repeated submodule"),
    "device": (lambda: compiled(devices="cuda:7"), "the model is on cpu, not on cuda:7: move it first"),
    "model": (lambda: altprop.compile("resnet18", "dfa"), "takes an nn.Module, not str"),
    "rate": (lambda: altprop.optim.SGD(lr=-1.0), "SGD: lr is -1.0; it must be 0 or more"),
    "nesterov": (lambda: altprop.optim.SGD(nesterov=True), "nesterov=True needs a momentum above 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    run, message = OPTIONS[name]
    with pytest.raises(altprop.CompileError, match=message):
        run()


# What one gives


def complex_model() -> nn.Module:
    model = make_model()
    model[0] = nn.Linear(7, 9, dtype=torch.complex64)
    return model


def broken_model() -> nn.Module:
    model = make_model()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    return model


class Unused(nn.Module):
    """Holds a layer that the forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(7, 3)
        self.spare = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


INPUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "batch of one": (
        lambda: compiled(example_inputs=(X[:1],)),
        r"batch of 1, which torch.export would fix for good: give a batch of two or more",
    ),
    "complex input": (lambda: compiled(example_inputs=(X.to(torch.complex64),)), "an input is complex: use real"),
    "complex parameter": (lambda: compiled(model=complex_model()), r"0\.weight is complex: use real tensors"),
    "nan": (lambda: compiled(model=broken_model()), r"parameter 2\.weight holds NaN or infinity"),
    "no tensor": (lambda: compiled(example_inputs=(3,)), "no tensor among its inputs"),
    "flat": (
        lambda: compiled(model=nn.Sequential(nn.Linear(7, 5), altprop.nn.Round(), nn.Linear(5, 3))),
        'region "0" has the activation "round", whose derivative is zero',
    ),
    "too many": (
        lambda: compiled(example_inputs=(X, X)),
        r"[^.:]\. The example inputs do not fit forward: .* positional arguments; .* --input-shape once for each\.",
    ),
    "wrong width": (lambda: compiled(example_inputs=(X[:, :5],)), "cannot be captured.*check their shapes"),
    "unused": (
        lambda: compiled(model=Unused()),
        r"spare\.bias, spare\.weight: nothing that the model returns is made of it and an input, .*or use it",
    ),
    "nothing to learn": (
        lambda: compiled(model=make_model().requires_grad_(False)),
        "no trainable parameter takes part in the forward",
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    run, message = INPUTS[name]
    with pytest.raises(altprop.CompileError, match=message):
        run()


class Branching(nn.Module):
    """Looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = 2 * x
        return self.layer(x)


class Number(nn.Module):
    """Turns a tensor into a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = float(x.mean())
        return self.layer(x) * (1.0 if scale > 0.5 else scale)


class Straight(torch.autograd.Function):
    """A backward in Python, which no capture can keep."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class OwnBackward(nn.Module):
    """Uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Straight.apply(self.layer(x))


class Writer(nn.Module):
    """Writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return self.layer(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Branching, r'module "1" \(Branching\) .*test_errors\.py:\d+ \("if x\.sum\(\) > 0:"\).*torch\.where'),
        (Number, r'module "1" \(Number\) .*test_errors\.py:\d+ \(".*scale.*"\)'),
        (OwnBackward, r"custom autograd\.Function .*Straight cannot be captured, since its backward is Python"),
        (Writer, r"writes into .*, one of its own inputs: work on a copy"),
    ],
)
def test_what_cannot_be_captured_is_named_with_its_line(kind: type[nn.Module], message: str) -> None:
    model = kind() if kind is Writer else nn.Sequential(nn.Identity(), kind())
    with pytest.raises(altprop.CaptureError, match=message) as raised:
        compiled(model=model)
    if kind is not Writer:
        assert raised.value.__cause__ is not None or kind is OwnBackward


# What one does with a net


def test_a_batch_that_does_not_match() -> None:
    net = compiled()
    with pytest.raises(ValueError, match="the target has a batch of 3, the input one of 4"):
        net.backward(X, Y[:3])


def test_a_target_of_another_form() -> None:
    net = compiled()
    with pytest.raises(altprop.CompileError, match="loss cross_entropy does not fit an output of shape"):
        net.backward(X, torch.zeros(4, 5))


def test_inputs_that_require_grad() -> None:
    net = compiled()
    with pytest.raises(altprop.CompileError, match="input 0 requires grad, but a local program sends no error"):
        net(X.clone().requires_grad_())


def test_step_without_an_optimizer() -> None:
    with pytest.raises(altprop.CompileError, match=r"net\.step needs an optimizer inside the program"):
        compiled().step(X, Y)


def test_a_loss_that_is_no_scalar() -> None:
    with pytest.raises(altprop.CompileError, match=r"returned \(N\), not a scalar: take its mean"):
        compiled(loss=lambda output, target: (output - target).square().mean(1)).backward(X, torch.zeros(4, 3))


def test_a_target_that_cannot_stand_in_the_place_of_an_error() -> None:
    """The batch is called N, in torch's words it would be a symbol."""
    net = compiled("drtp", loss=lambda output, target: (output.sum(1) - target.sum(1)).square().mean())
    with pytest.raises(altprop.CompileError, match=r"neither the output's shape \(N, 3\) nor that of its classes"):
        net.backward(X, torch.zeros(4, 5))


def test_unknown_feedback() -> None:
    with pytest.raises(KeyError, match='there is no feedback "9->0"; there is: 4->2, 4->0'):
        compiled().feedback["9->0"]


def test_unknown_parameter_in_the_table() -> None:
    with pytest.raises(KeyError, match=r'there is no parameter "weight of nothing"; there are: 0\.weight, 0\.bias, .*'):
        compiled().explain()["weight of nothing"]


def test_feedback_that_does_not_fit() -> None:
    with pytest.raises(altprop.PlanError, match=r"feedback by position: .* share no positions"):
        compiled("dfa(kind='position')")


def test_a_plan_whose_regions_send_nothing_is_refused_with_the_way_out() -> None:
    plan = compiled("dfa").plan
    mute = [dataclasses.replace(region, error_neurons=region.name != "0") for region in plan.regions]
    with pytest.raises(altprop.PlanError, match=r'"0" has no error neurons in the plan: give it error_neurons=True'):
        compiled(None, plan=altprop.WiringPlan(tuple(mute), plan.connections))
    frozen = [dataclasses.replace(r, rule="frozen") if r.name == "2" else r for r in plan.regions]
    wires = [dataclasses.replace(c, source="2") if c.target == "0" else c for c in plan.connections]
    with pytest.raises(
        altprop.RuleError, match=r'region "2" is frozen and has no error to send: give it a rule, or draw'
    ):
        compiled(None, plan=altprop.WiringPlan(tuple(frozen), tuple(wires)))


def test_examine_names_what_no_output_is_made_of() -> None:
    report = str(altprop.examine(Unused(), (X,)))
    assert "spare.weight: nothing that the model returns is made of it: freeze it, requires_grad_(False)" in report


def test_forward_shaped_feedback_does_not_skip() -> None:
    net = compiled("fa")
    moved = [altprop.Connection("4", c.target, c.feedback) for c in net.plan.connections]
    plan = altprop.WiringPlan(net.plan.regions, tuple(moved))
    with pytest.raises(altprop.PlanError, match='feedback "forward" runs backwards over a forward edge, but 4 does'):
        compiled("fa", plan=plan)


def test_a_rule_that_fails_names_its_region() -> None:
    class Failing(altprop.rules.Rule):
        def error(self, local: Any, d: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("oops")

    with pytest.raises(altprop.RuleError, match=r'failed on region "2" at .*: ZeroDivisionError: oops') as raised:
        compiled(Failing())
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_exact_feedback_cannot_learn() -> None:
    exact = compiled("bp", plan="chain").plan
    learned = altprop.Feedback("transpose", learning=True)
    connections = tuple(altprop.Connection(c.source, c.target, learned) for c in exact.connections)
    plan = altprop.WiringPlan(exact.regions, connections)
    with pytest.raises(altprop.PlanError, match='"transpose" feedback cannot learn; write it as fixed'):
        compiled("bp", plan=plan)


def test_exporting_to_an_unknown_format() -> None:
    with pytest.raises(altprop.CompileError, match="xyz"):
        compiled().export("net.xyz")


class Restrided(nn.Module):
    """Restrides an activity by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.as_strided(self.first(x), (x.shape[0], 2), (4, 2)))


def test_a_tensor_restrided_by_hand() -> None:
    x = torch.randn(3, 4)
    with pytest.raises(altprop.CompileError, match=r'region "first" restrides a tensor by hand'):
        altprop.compile(Restrided(), "bp", example_inputs=(x,))
    assert not altprop.examine(Restrided(), (x,)).ok
