"""Cases of suites that others wrote: torch's operators (OpInfo) and torch's modules (ModuleInfo).

A case is a model, its inputs and a seed. One step by `bp` is compared with autograd in float64. The model of an
operator is a layer of weights, one for each element of a sample, and the operator behind it; what an operator takes
besides is an input of the model. Samples without a batch of two or more have nothing to be compiled for.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import altprop
from altprop.ir.errors import CompileError, VerifyError

SEED = 7
BOUND = 1e-9
EQUAL, REFUSED, DIFFERS, FAILS = "equal", "refused", "differs", "fails"
JARGON = (
    r"aten\.",
    r"\bguard",
    "unhinted",
    r"\bFake",
    "SymInt",
    r"torch\._",
    "functorch",
    r"\bvmap",
    r"\bEq\(",
    "0x",
    r"\bu\d+\b",
)
NO_BATCH, NO_GRADIENT, NO_FINITE_GRADIENT = "no batch", "no gradient", "no finite gradient"
NOTHING = (NO_BATCH, NO_GRADIENT, NO_FINITE_GRADIENT, "torch itself fails")

LISTED = {
    "nn.functional.rrelu": "the slopes of a vector are drawn otherwise from torch's stream",
    "combinations": "its result has as many rows as the numbers in a tensor tell",
}
"""Operators that do not equal autograd, and why."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and its inputs.

    Attributes:
        name: "add".
        number: of the sample.
        model: what is compiled; None where the sample has no batch.
        inputs: a tuple of tensors.
    """

    name: str
    number: int
    model: nn.Module | None = None
    inputs: tuple[torch.Tensor, ...] = ()


class Behind(nn.Module):
    """A weight for each element of the first tensor, and something behind it.

    Args:
        call: takes the leaves of a call.
        leaves: of the call; the first is a tensor. What the call writes into, such as running statistics, is a buffer,
            other tensors are inputs, the rest is fixed.
    """

    def __init__(self, call: Callable[[list[Any]], Any], leaves: list[Any]) -> None:
        super().__init__()
        self.call = call
        written = written_into(call, leaves)
        self.fixed = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.places = [
            place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and place not in written
        ]
        for place in written:
            self.register_buffer(f"buffer{place}", leaves[place].clone())
        self.written = written
        self.weight = nn.Parameter(torch.ones(leaves[0].shape[1:], dtype=torch.float64))

    def forward(self, *tensors: torch.Tensor) -> Any:
        """The call."""
        leaves = list(self.fixed)
        for place in self.written:
            leaves[place] = getattr(self, f"buffer{place}")
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        leaves[0] = leaves[0] * self.weight
        return self.call(leaves)


def written_into(call: Callable[[list[Any]], Any], leaves: list[Any]) -> list[int]:
    """Places of the tensors behind the first that a call writes into."""
    copies = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    seed_all()
    try:
        call(copies)
    except Exception:  # torch's own; the outcome will say so
        return []
    tensors = [(place, leaf) for place, leaf in enumerate(copies) if place and isinstance(leaf, torch.Tensor)]
    return [place for place, leaf in tensors if leaf._version or not torch.equal(leaf, leaves[place])]


def loss(output: Any, target: torch.Tensor) -> torch.Tensor:
    """A scalar of all floating outputs, whose gradient is another for each element."""
    tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    total = target.sum() * 0.0
    for tensor in tensors:
        if tensor.is_floating_point():
            total = total + (tensor.double() * 0.5 + 1.0).square().sum()
    return total


loss.reduction = "sum"  # type: ignore[attr-defined]


def has_batch(leaf: Any) -> bool:
    """Whether a value is a plain tensor of floats with two samples or more."""
    return (
        isinstance(leaf, torch.Tensor)
        and leaf.layout is torch.strided
        and leaf.dtype is torch.float64
        and leaf.dim() > 0
        and leaf.shape[0] > 1
        and leaf.numel() > 0
    )


def seed_all() -> None:
    """The same numbers for who makes samples, and for who draws."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


def behind(name: str, number: int, call: Callable[..., Any], structure: Any) -> Case:
    """Returns the case of a call; without a model where it has no batch.

    Args:
        name: of the entry.
        number: of the sample.
        call: takes the first argument, the others, and arguments by name.
        structure: these three.
    """
    leaves, spec = pytree.tree_flatten(structure)
    leaves = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    if not leaves or not has_batch(leaves[0]):
        return Case(name, number)

    def opened(values: list[Any]) -> Any:
        first, args, kwargs = pytree.tree_unflatten(values, spec)
        return call(first, *args, **kwargs)

    model = Behind(opened, leaves)
    return Case(name, number, model, tuple(leaves[place] for place in model.places))


def operators() -> dict[str, Any]:
    """OpInfo's entries that torch differentiates in float64, by name.

    Some of them set torch's seed before they draw, which a program does not hear: here the seed is the judge's.
    """
    from torch.testing._internal import common_methods_invocations as database

    database.wrapper_set_seed = _without_seed
    found = {}
    for op in database.op_db:
        name = op.name + (f".{op.variant_test_name}" if op.variant_test_name else "")
        if op.supports_autograd and torch.float64 in op.dtypes and torch.float64 in op.backward_dtypes:
            found[name] = op
    return found


def _without_seed(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs)


def samples(name: str) -> Iterator[Case]:
    """The samples of an operator."""
    op = operators()[name]
    seed_all()
    drawn = list(op.sample_inputs("cpu", torch.float64, requires_grad=True))
    return (behind(name, i, op.op, (one.input, one.args, one.kwargs)) for i, one in enumerate(drawn))


def modules() -> dict[str, Any]:
    """ModuleInfo's entries by name and mode."""
    from torch.testing._internal.common_modules import module_db

    found = {}
    for info in module_db:
        if torch.float64 in info.dtypes:
            found |= {f"{info.name}.{mode}": info for mode in ("train", "eval")}
    return found


def module_samples(name: str) -> Iterator[Case]:
    """The inputs of a module."""
    info, mode = modules()[name], name.rpartition(".")[2]
    training = mode == "train"
    seed_all()
    inputs = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)
    return (_module_case(name, number, info, one) for number, one in enumerate(inputs))


def _module_case(name: str, number: int, info: Any, sample: Any) -> Case:
    given, built = sample.forward_input, sample.constructor_input
    if given is None or not given.args:
        return Case(name, number)
    seed_all()
    module = info.module_cls(*built.args, **built.kwargs).double().train(name.endswith(".train"))

    def call(*args: Any, **kwargs: Any) -> Any:
        return module(*args, **kwargs)

    case = behind(name, number, call, (given.args[0], given.args[1:], given.kwargs))
    if case.model is not None:
        case.model.add_module("inner", module)  # its parameters are the model's
    return case


def warm_up() -> None:
    """Compiles once, so that forks of this process need not begin with nothing."""
    net = altprop.compile(nn.Sequential(nn.Linear(3, 2)), "bp", example_inputs=(torch.randn(2, 3),), loss=loss)
    net.backward(torch.randn(2, 3), torch.zeros(2))


class Together(nn.Module):
    """Several cases as one model, which has the weights, inputs and outputs of all."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([case.model for case in cases if case.model is not None])
        self.counts = [len(case.inputs) for case in cases]

    def forward(self, *tensors: torch.Tensor) -> Any:
        """All outputs."""
        ends = itertools.accumulate(self.counts)
        return [
            part(*tensors[end - count : end]) for part, count, end in zip(self.parts, self.counts, ends, strict=True)
        ]


def outcomes(cases: Sequence[Case]) -> list[str]:
    """What comes of cases with one size of the batch: compiled together and, if not all is well, by themselves."""
    if len(cases) > 1:
        target = torch.zeros(cases[0].inputs[0].shape[0], dtype=torch.float64)
        model, inputs = Together(cases), tuple(tensor for case in cases for tensor in case.inputs)
        try:
            expected = _by_autograd(model, inputs, target)
            found = _by_net(model, inputs, target)
            own = [
                {name: grad for name, grad in expected.items() if name.startswith(f"parts.{i}.")}
                for i in range(len(cases))
            ]
            kinds = [judged(found, wanted) for wanted in own]
            if not any(kind.startswith(DIFFERS) for kind in kinds):
                return kinds
        except Exception:  # one of them, or the two of them together
            pass
    return each(cases)


def each(cases: Sequence[Case]) -> list[str]:
    """What comes of cases, each by itself."""
    return [outcome(case) for case in cases]


def outcome(case: Case) -> str:
    """What comes of one step by `bp`: "equal", "refused: why", "differs: how far", "fails: how", or of `NOTHING`."""
    if case.model is None:
        return NO_BATCH
    target = torch.zeros(case.inputs[0].shape[0], dtype=torch.float64)
    try:
        expected = _by_autograd(case.model, case.inputs, target)
    except Exception as error:
        return f"torch itself fails: {type(error).__name__}"
    try:
        found = _by_net(case.model, case.inputs, target)
    except CompileError as error:
        said = refusal(error)
        return NO_GRADIENT if said.startswith(REFUSED) and not _any(expected) else said
    except Exception as error:
        return f"{FAILS}: {type(error).__name__}: {short(error)}"
    return judged(found, expected)


def judged(found: Mapping[str, torch.Tensor | None], expected: Mapping[str, torch.Tensor]) -> str:
    """Compares gradients with those of autograd."""
    if not _any(expected):
        return NO_GRADIENT
    if not all(bool(grad.isfinite().all()) for grad in expected.values()):
        return NO_FINITE_GRADIENT
    far = [_far(found[name], wanted) for name, wanted in expected.items()]
    return EQUAL if all(one <= BOUND for one in far) else f"{DIFFERS}: {max(far):.0e}"


def refusal(error: CompileError) -> str:
    """What a refusal is: a sentence, or a failure if it has several lines or torch's words."""
    message = short(error)
    word = next((word for word in JARGON if re.search(word, message)), None)
    if isinstance(error, VerifyError):
        return f"{FAILS}: VerifyError: {message}"
    if "\n" in str(error) or word:
        return f"{FAILS}: {'of several lines' if not word else 'jargon'}: {message}"
    return f"{REFUSED}: {message}"


def listed(name: str) -> str:
    """Returns why an entry need not equal autograd; "" if it must."""
    return LISTED.get(name, "")


def _by_net(model: nn.Module, inputs: Any, target: torch.Tensor) -> dict[str, torch.Tensor | None]:
    seed_all()
    net = altprop.compile(model, "bp", example_inputs=inputs, loss=loss)
    model.zero_grad(set_to_none=True)
    seed_all()
    loss(net(*inputs), target).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _by_autograd(model: nn.Module, inputs: Any, target: torch.Tensor) -> dict[str, torch.Tensor]:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad(set_to_none=True)
    seed_all()
    loss(model(*(one.clone() for one in inputs)), target).backward()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _any(gradients: Mapping[str, torch.Tensor]) -> bool:
    return any(bool(gradient.any()) for gradient in gradients.values())


def _far(found: torch.Tensor | None, wanted: torch.Tensor) -> float:
    if found is None:
        return float("inf") if float(wanted.abs().sum()) else 0.0
    return float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))


def short(error: BaseException) -> str:
    """An error's message in a line."""
    here = f"{Path(__file__).parent}/"
    return " ".join(str(error).replace(here, "").split())[:300]
