"""Cases of suites that others wrote: torch's operators (OpInfo) and torch's modules (ModuleInfo).

A case is a model, its inputs and a seed. One step by `bp` is compared with autograd in float64. The model of an
operator is a layer of weights, one for each element of a sample, and the operator behind it; what an operator takes
besides is an input of the model. Samples without a batch of two or more have nothing to be compiled for.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator
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
NOTHING = ("no batch", "no gradient", "no finite gradient", "torch itself fails")

LISTED = {
    "native_group_norm": "torch's own derivative is another when gradients of the mean and the deviation come together",
    "nn.functional.rrelu": "the slopes of a vector are drawn otherwise from torch's stream",
    "combinations": "its result has as many rows as the numbers in a tensor tell",
}
"""Operators that do not equal autograd, and why."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and its inputs.

    Attributes:
        name: "operator.add#3".
        make: builds the model and its inputs, a tuple of tensors.
    """

    name: str
    make: Callable[[], tuple[nn.Module, tuple[Any, ...]]]


class Behind(nn.Module):
    """A weight for each element of the first tensor, and something behind it.

    Args:
        call: takes the leaves of a call.
        leaves: of the call: tensors are inputs, the rest is fixed.
        first: place of the tensor that the weights multiply.
    """

    def __init__(self, call: Callable[..., Any], leaves: list[Any], first: int) -> None:
        super().__init__()
        self.call = call
        self.fixed = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.first = self.places.index(first)
        self.weight = nn.Parameter(torch.ones(leaves[first].shape[1:], dtype=torch.float64))

    def forward(self, *tensors: torch.Tensor) -> Any:
        """The call."""
        given = list(tensors)
        given[self.first] = given[self.first] * self.weight
        leaves = list(self.fixed)
        for place, tensor in zip(self.places, given, strict=True):
            leaves[place] = tensor
        return self.call(leaves)


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


def behind(call: Callable[..., Any], structure: Any) -> tuple[nn.Module, tuple[Any, ...]] | None:
    """Returns a model of a call, and its inputs; None where it has no batch."""
    leaves, spec = pytree.tree_flatten(structure)
    leaves = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    if not leaves or not has_batch(leaves[0]):
        return None

    def opened(values: list[Any]) -> Any:
        first, args, kwargs = pytree.tree_unflatten(values, spec)
        return call(first, *args, **kwargs)

    model = Behind(opened, leaves, 0)
    return model, tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def operators() -> dict[str, Any]:
    """OpInfo's entries that torch differentiates in float64, by name."""
    from torch.testing._internal.common_methods_invocations import op_db

    found = {}
    for op in op_db:
        name = op.name + (f".{op.variant_test_name}" if op.variant_test_name else "")
        if op.supports_autograd and torch.float64 in op.dtypes and torch.float64 in op.backward_dtypes:
            found[name] = op
    return found


def samples(name: str, most: int) -> Iterator[Case]:
    """The first samples of an operator that have a batch."""
    op = operators()[name]

    @functools.cache
    def drawn() -> list[Any]:
        seed_all()
        return list(op.sample_inputs("cpu", torch.float64, requires_grad=True))

    count = 0
    for number in range(len(drawn())):
        if count == most:
            return
        sample = drawn()[number]
        made = behind(op.op, (sample.input, sample.args, sample.kwargs))
        if made is not None:
            count += 1
            yield Case(f"{name}#{number}", functools.partial(lambda made: made, made))


def modules() -> dict[str, Any]:
    """ModuleInfo's entries by name and mode."""
    from torch.testing._internal.common_modules import module_db

    found = {}
    for info in module_db:
        if torch.float64 in info.dtypes:
            found |= {f"{info.name}.{mode}": info for mode in ("train", "eval")}
    return found


def module_samples(name: str, most: int) -> Iterator[Case]:
    """The first inputs of a module that have a batch."""
    info, mode = modules()[name], name.rpartition(".")[2]
    seed_all()
    training = mode == "train"
    inputs = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)
    count = 0
    for number, one in enumerate(inputs):
        if count == most:
            return
        given, built = one.forward_input, one.constructor_input
        if given is None or not given.args:
            continue
        seed_all()
        module = info.module_cls(*built.args, **built.kwargs).double()
        call = functools.partial(_call, module)
        made = behind(call, (given.args[0], given.args[1:], given.kwargs))
        if made is not None:
            model, tensors = made
            model.add_module("inner", module.train(mode == "train"))  # its parameters are the model's
            count += 1
            yield Case(f"{name}#{number}", functools.partial(lambda made: made, (model, tensors)))


SUITES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[str, int], Iterator[Case]]]] = {
    "operators": (operators, samples),
    "modules": (modules, module_samples),
}


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def outcome(case: Case) -> str:
    """What comes of one step by `bp`: "equal", "refused: why", "differs: by how much" or "fails: how"."""
    model, inputs = case.make()
    target = torch.zeros(inputs[0].shape[0], dtype=torch.float64)
    try:
        expected = _by_autograd(model, inputs, target)
    except Exception as error:
        return f"torch itself fails: {type(error).__name__}: {_short(error)}"
    if not any(float(grad.abs().sum()) for grad in expected.values()):
        return "no gradient"
    if not all(bool(grad.isfinite().all()) for grad in expected.values()):
        return "no finite gradient"
    try:
        net = altprop.compile(model, "bp", example_inputs=inputs, loss=loss)
        model.zero_grad(set_to_none=True)
        torch.manual_seed(SEED)
        net.backward(inputs, target)
    except VerifyError as error:
        return f"{FAILS}: VerifyError: {_short(error)}"
    except CompileError as error:
        return (
            f"{REFUSED}: {_short(error)}" if "\n" not in str(error) else f"{FAILS}: of several lines: {_short(error)}"
        )
    except Exception as error:
        return f"{FAILS}: {type(error).__name__}: {_short(error)}"
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    far = max(_far(found[name], wanted) for name, wanted in expected.items())
    return EQUAL if far <= BOUND else f"{DIFFERS}: {far:.1e}"


def listed(name: str) -> str:
    """Returns why a case need not equal autograd; "" if it must."""
    return LISTED.get(name.partition("#")[0], "")


def _by_autograd(model: nn.Module, inputs: Any, target: torch.Tensor) -> dict[str, torch.Tensor]:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad(set_to_none=True)
    torch.manual_seed(SEED)
    loss(model(*(one.clone() for one in inputs)), target).backward()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _far(found: torch.Tensor | None, wanted: torch.Tensor) -> float:
    if found is None:
        return float("inf") if float(wanted.abs().sum()) else 0.0
    return float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))


def _short(error: BaseException) -> str:
    here = f"{Path(__file__).parent}/"
    return " ".join(str(error).replace(here, "").split())[:300]
