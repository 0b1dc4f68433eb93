"""One call of a model: its arguments, and what must agree for two calls to run the same program."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.structures import open_dataclasses, structure_of
from altprop.ir.torch_private import pytree

ONE_TUPLE = (
    "several inputs are given as one tuple, net.step((a, b), target) and net.backward((a, b), target); net(a, b) takes "
    "them as the model does."
)


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of one call of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @staticmethod
    def from_inputs(inputs: Any, example: "Call | None" = None) -> "Call":
        """Builds a call from `inputs` of `net.step`: a tensor, a tuple, or a dict of keyword arguments.

        A list is a tuple to a model whose example took as many inputs, as loaders of data make them.
        """
        if isinstance(inputs, list) and example is not None and len(example.args) == len(inputs) > 1:
            inputs = tuple(inputs)
        if isinstance(inputs, tuple):
            return Call(inputs, {})
        if isinstance(inputs, Mapping):  # such as a `BatchEncoding`, which is no dict
            return Call((), dict(inputs))
        return Call((inputs,), {})

    @functools.cached_property
    def leaves(self) -> list[Any]:
        """The flattened arguments."""
        if not self.kwargs and all(isinstance(arg, torch.Tensor) for arg in self.args):
            return list(self.args)
        open_dataclasses((self.args, self.kwargs))
        leaves: list[Any] = pytree.tree_leaves((self.args, self.kwargs))
        return leaves

    @functools.cached_property
    def first(self) -> torch.Tensor:
        """The first tensor among the arguments.

        Raises:
            CompileError: there is none.
        """
        for leaf in self.leaves:
            if isinstance(leaf, torch.Tensor):
                return leaf
        raise CompileError("the call has no tensor among its inputs.")

    @property
    def batch(self) -> int:
        """Size of the batch."""
        return self.first.shape[0] if self.first.dim() else 1

    @property
    def device_type(self) -> str:
        """Type of the device that the inputs are on."""
        return self.first.device.type

    def form(self) -> Any:
        """Returns what must agree of the tensors for two calls to run the same program: all but the batch."""
        batch = self.batch

        def of(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return None
            if leaf.dim() and leaf.shape[0] == batch:
                return (leaf.dtype, leaf.device, leaf.shape[1:])
            return (leaf.dtype, leaf.device, leaf.shape, None)

        return (self.structure, *map(of, self.leaves))

    def values(self) -> tuple[Any, ...]:
        """Returns the inputs that are no tensors: they are fixed in a program."""
        return tuple(leaf for leaf in self.leaves if not isinstance(leaf, torch.Tensor))

    @property
    def structure(self) -> Any:
        """How the arguments are built: two calls of the same leaves may mean different things by them."""
        return structure_of((self.args, self.kwargs))

    @staticmethod
    def target_key(target: Any) -> Any:
        """Returns what must agree for two targets to run the same program: all but the batch."""
        leaves = [target] if isinstance(target, torch.Tensor) else pytree.tree_leaves(target)
        forms = ((t.dtype, tuple(t.shape[1:])) if isinstance(t, torch.Tensor) else t for t in leaves)
        return (structure_of(target), *forms)

    def refuse_input_gradients(self) -> None:
        """Refuses inputs that require grad: no local rule sends errors beyond the first region.

        Raises:
            CompileError: names the input.
        """
        for index, leaf in enumerate(self.leaves):
            if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
                raise CompileError(
                    f"input {index} requires grad, but a local program sends no error to its inputs: "
                    "detach it, or compile the whole model that makes it."
                )
