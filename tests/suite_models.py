"""Random models of NNSmith: graphs of operators whose shapes fit, drawn by a solver.

It needs `pip install nnsmith`. NNSmith draws operators of all types; here all tensors are float64, operators that have
no derivative at all, such as comparisons, are left out, and layers come more often. Models without a parameter or
without a batch are drawn again. What follows from constants alone is not returned.
"""

import contextlib
import copy
import functools
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from suite_cases import (
    EQUAL,
    FAILS,
    NO_FINITE_GRADIENT,
    NO_GRADIENT,
    REFUSED,
    Behind,
    Case,
    has_batch,
    loss,
    outcome,
    refusal,
    seed_all,
    short,
)
from torch import nn

import altprop
from altprop.ir.errors import CompileError

COUNT, SHARE = 300, 10  # models; of one entry
NODES, ELEMENTS = 12, 512
CHOICES = {"And", "Or", "Xor", "Equal", "Greater", "Less", "Where", "ArgMin", "ArgMax"}
CASTS = {"CastBool", "CastF32", "CastI32", "CastI64"}
LAYERS = {"Conv1d", "NCHWConv2d", "Linear", "BatchNorm2d", "PReLU", "PTMatMul"}
OFTEN = 6  # layers are drawn so many times more often


class Drawn(nn.Module):
    """A model of NNSmith, as what it calls in order.

    Args:
        net: NNSmith's own module, which measures and checks what it computes.

    Attributes:
        given: an input for each name, drawn by NNSmith.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.calls = [(call, list(given), list(made)) for call, given, made, _ in net.instructions]
        self.layers = nn.ModuleList([call for call, _, _ in self.calls if isinstance(call, nn.Module)])
        self.inputs = list(net.input_like)
        felt = set(self.inputs)
        for _, given, made in self.calls:
            felt.update(made if felt & set(given) else ())
        self.outputs = [name for name in net.output_like if name in felt]  # others are made of constants alone
        self.given = [tensor.double() for tensor in net.get_random_inps(base="center").values()]

    def forward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """All values that follow from the inputs and that nothing reads."""
        values = dict(zip(self.inputs, tensors, strict=True))
        for call, given, made in self.calls:
            result = call(*[values[name] for name in given])
            values |= zip(made, result if isinstance(result, list | tuple) else [result], strict=True)
        return [values[name] for name in self.outputs]


@functools.cache
def smith() -> Any:
    """NNSmith's generator and operators; what it prints while it looks for them is dropped."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnsmith.graph_gen import model_gen
        from nnsmith.materialize.torch import TorchModelCPU
        from nnsmith.narrow_spec import auto_opset

        TorchModelCPU.add_seed_setter()
        operators = sorted(auto_opset(TorchModelCPU), key=lambda one: one.__name__)

    def drawn(seed: int) -> Any:
        chosen = [one for one in operators if one.__name__ not in CHOICES | CASTS]
        chosen += [one for one in operators if one.__name__ in LAYERS] * OFTEN
        options = {"max_nodes": NODES, "max_elem_per_tensor": ELEMENTS, "dtype_choices": ["f64"]}
        made = model_gen(chosen, method="symbolic-cinit", seed=seed, timeout_ms=10_000, **options)
        return TorchModelCPU.from_gir(made.make_concrete()).torch_model

    return drawn


def entries() -> dict[str, Any]:
    """Names of shares of the models: "0-9"."""
    return {f"{first}-{first + SHARE - 1}": first for first in range(0, COUNT, SHARE)}


def models(name: str) -> Iterator[Case]:
    """The models of a share."""
    first = entries()[name]
    return (model(name, number) for number in range(first, first + SHARE))


def model(name: str, number: int) -> Case:
    """The model of a number: the first with a parameter and a batch, of the seeds from 1,000 times the number on."""
    for seed in itertools.count(1000 * number):
        net = Drawn(smith()(seed)).double()
        batched = [place for place, tensor in enumerate(net.given) if has_batch(tensor)]
        if batched and net.outputs and list(net.parameters()):
            return _case(name, number, net, batched[0])
    raise AssertionError("seeds end")


def _case(name: str, number: int, net: Drawn, first: int) -> Case:
    order = [first, *(place for place in range(len(net.given)) if place != first)]

    def call(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
        return net([leaves[order.index(place)] for place in range(len(order))])

    model = Behind(call, [net.given[place] for place in order])
    model.add_module("inner", net)  # its parameters are the model's
    return Case(name, number, model, tuple(net.given[order[place]] for place in model.places))


class Chained(nn.Module):
    """Two copies of a random model with layers in front, between and behind, so that it has several regions.

    Args:
        net: a random model.
        first: the place of its input whose rows are samples; the chain makes that one, and others are drawn once.
    """

    def __init__(self, net: Drawn, first: int) -> None:
        super().__init__()
        self.first, self.shape = first, net.given[first].shape
        self.rest = nn.ParameterList([nn.Parameter(one, requires_grad=False) for one in net.given])
        self.drawn = nn.ModuleList([net, copy.deepcopy(net)])
        size = self.shape[1:].numel()
        counts = [size, *(self._features(one, net.given[first]).shape[1] for one in self.drawn)]
        self.layers = nn.ModuleList([_layers(count, size) for count in counts[:2]])
        self.behind = _layers(counts[2], 3)

    def _features(self, net: nn.Module, value: torch.Tensor) -> torch.Tensor:
        """The outputs of a model that have samples in their rows, side by side; means of all if there are none."""
        given = [value if place == self.first else one for place, one in enumerate(self.rest)]
        outputs = [one for one in net(given) if one.is_floating_point()]
        rows = [one for one in outputs if one.dim() and len(one) == len(value)]
        means = [one.mean().expand(len(value), 1) for one in outputs]
        return torch.cat([one.flatten(1) if one.dim() > 1 else one[:, None] for one in rows or means], 1)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Takes a row of the model's own input for each sample, flat."""
        for net, layers in zip(self.drawn, self.layers, strict=True):
            value = self._features(net, layers(value).reshape(self.shape)).nan_to_num(0, 0, 0).clamp(-10, 10)
        return self.behind(value)


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs), nn.Tanh()).double()


def each_by_bp(cases: Sequence[Case]) -> list[str]:
    """What comes of a step by `bp`, where what autograd gives no gradient is frozen as a refusal advises."""
    return [_advised(case.model, lambda case=case: outcome(case)) for case in cases]


def each_silent(cases: Sequence[Case]) -> list[str]:
    """What `silent` says of cases, with two copies of each model in a chain."""
    found = []
    for case in cases:
        model, inputs = _chained(case)
        found.append(_advised(model, functools.partial(silent, model, inputs)))
    return found


def _advised(model: nn.Module, judge: Callable[[], str]) -> str:
    """An outcome, behind freezing each parameter of which a refusal says that no error, or no input, gets to it."""
    said = judge()
    while advice := re.match(
        rf"{REFUSED}: (?P<names>\S+(, \S+)*)(:? is felt through |: the forward reads no such)", said
    ):
        for name in advice["names"].removesuffix(":").split(", "):
            model.get_parameter(name).requires_grad_(False)
        said = judge()
    return NO_GRADIENT if "there is nothing to learn" in said or "torch itself" in said else said


def silent(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """Whether `dfa` with all feedback zero moves nothing that `explain` gives to it: "equal", or why not."""
    seed_all()
    try:
        net = altprop.compile(model, "dfa", example_inputs=inputs, loss=loss)
        own = {row.parameter for row in net.explain().rows if row.rule == "dfa"}
        moved = _moved(net, inputs)
        with torch.no_grad():
            for matrix in net.feedback.values():
                matrix.zero_()
        still = _moved(net, inputs)
    except CompileError as error:
        return refusal(error)
    except Exception as error:
        return f"{FAILS}: {type(error).__name__}: {short(error)}"
    if not all(bool(one.grad.isfinite().all()) for one in model.parameters() if one.grad is not None):
        return NO_FINITE_GRADIENT
    if still & own:
        return f"{FAILS}: {', '.join(sorted(still & own))} moved"
    return EQUAL if moved & own else NO_GRADIENT


def _chained(case: Case) -> tuple[nn.Module, tuple[torch.Tensor]]:
    net = case.model.get_submodule("inner")  # type: ignore[union-attr]
    assert isinstance(net, Drawn)
    first = next(place for place, one in enumerate(net.given) if has_batch(one))
    return Chained(net, first), (net.given[first].reshape(len(net.given[first]), -1),)


def _moved(net: nn.Module, inputs: tuple[torch.Tensor]) -> set[str]:
    """The parameters that get a gradient in one step."""
    net.model.zero_grad(set_to_none=True)
    loss(net(*inputs), torch.zeros(len(inputs[0]), dtype=torch.float64)).backward()
    return {name for name, one in net.model.named_parameters() if one.grad is not None and bool(one.grad.any())}
