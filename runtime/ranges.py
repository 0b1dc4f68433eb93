"""What the integers of a batch count: rows of embeddings, classes of losses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import CompileError
from altprop.ir.program import Program, Slot

aten = torch.ops.aten

_LOSSES = (aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
_SAME_NUMBERS = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.dims,
    aten.alias.default,
    aten.clone.default,
    aten.permute.default,
    aten.transpose.int,
)


@dataclasses.dataclass(frozen=True)
class Range:
    """The integers that an input or a target may hold.

    Attributes:
        slot: the input or target.
        size: they are from 0 to size - 1.
        table: the embedding whose rows they are; "" for the classes of a loss.
        ignored: one more that they may be.
    """

    slot: Slot
    size: int
    table: str = ""
    ignored: int | None = None

    def wrong(self, given: Mapping[Slot, Any]) -> str:
        """Returns a sentence on the first integer that is out of range; "" where there is none."""
        value = given.get(self.slot)
        if not isinstance(value, torch.Tensor) or not value.numel():
            return ""
        low, high = torch.aminmax(value)
        if low >= 0 and high < self.size:
            return ""
        outside = value[(value < 0) | (value >= self.size)]
        found = next((number for number in outside.tolist() if number != self.ignored), None)
        if found is None:
            return ""
        last = self.size - 1
        if self.table:
            return f"{self.slot.name} holds {found}, and {self.table} has the rows 0 to {last}."
        return (
            f"the target holds the class {found}, and the output has scores of {self.size} classes, 0 to {last}. "
            f"Give the model as many outputs as there are classes; samples to be left out are marked {self.ignored}."
        )


def ranges(program: Program) -> list[Range]:
    """Returns what a program asks of the integers that it is given."""
    graph = program.graph.graph
    slots = dict(zip([n for n in graph.nodes if n.op == "placeholder"], program.inputs, strict=True))
    found: dict[Range, None] = {}
    for node in graph.nodes:
        if node.target is aten.embedding.default:
            table, slot = slots.get(node.args[0]), slots.get(_source(node.args[1]))
            if slot is not None and table is not None and slot.kind == "input":
                found[Range(slot, int(node.args[0].meta["val"].shape[0]), table.name)] = None
        elif node.target in _LOSSES:
            scores, target, _, _, ignored = node.args
            slot, shape = slots.get(_source(target)), scores.meta["val"].shape
            if slot is not None and slot.kind == "target":
                found[Range(slot, int(shape[1] if len(shape) > 1 else shape[0]), ignored=ignored)] = None
    return list(found)


def refuse_wrong_integers(wanted: list[Range], given: Mapping[Slot, Any]) -> None:
    """Refuses integers out of range before a program runs.

    Raises:
        CompileError: says which value is wrong, and what would be right.
    """
    for one in wanted:
        if reason := one.wrong(given):
            raise misfit(reason)


def misfit(reason: str) -> CompileError:
    """Returns a sentence on a value that is out of range as an error."""
    return CompileError(f"the batch does not fit the model: {reason}")


def _source(node: fx.Node) -> fx.Node:
    """The node that has the same numbers in another shape."""
    while node.target in _SAME_NUMBERS:
        node = node.args[0]  # type: ignore[assignment]
    return node
