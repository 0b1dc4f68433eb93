"""Derives identical regions once.

Two regions are *identical* if their operators, written with numbers in the place of names, are the same, on values of
the same shapes, strides, types and roles. The second takes over the traced graph of the first; only the names of the
values that it stands for differ. A transformer's layers, and a network's repeated blocks, share one derivation.
"""

import dataclasses
from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.local import PRODUCTS, LocalGraph, Role
from altprop.ir.region import Region
from altprop.passes.derive.linearize import linearize


class Linearizer:
    """Derives local graphs, each form once in a process; `shared` counts the regions that took one over."""

    def __init__(self, captured: CapturedGraph) -> None:
        self.captured = captured
        self.shared = 0

    def __call__(self, region: Region, products: Set[str] = frozenset(PRODUCTS)) -> LocalGraph:
        """Returns the local graph of a region with some of its products.

        Raises:
            CompileError: an operator of the region has no derivative, and a product needs one.
        """
        form, names = _form(self.captured, region)
        form = (form, frozenset(products))
        found: tuple[LocalGraph, list[str]] | None = self.captured.forms.find("local", form)
        if found is None:
            made = linearize(self.captured, region, products)
            self.captured.forms.add("local", form, (made, names))
            return made
        self.shared += 1
        made, before = found
        return _renamed(self.captured, made, region, dict(zip(before, names, strict=True)))


def _renamed(captured: CapturedGraph, local: LocalGraph, region: Region, names: dict[str, str]) -> LocalGraph:
    """The same graph for another region, whose values have other names."""

    def role(old: Role) -> Role:
        return (old[0], names[old[1]]) if old[0] == "value" else old

    values = tuple(names[name] for name in local.theta_values)
    return dataclasses.replace(
        local,
        region=region,
        inputs={name: role(old) for name, old in local.inputs.items()},
        results={role(old): node for old, node in local.results.items()},
        theta=tuple(captured.parameters[value] for value in values),
        theta_values=values,
        sources=tuple(names[name] for name in local.sources),
    )


def _form(captured: CapturedGraph, region: Region) -> tuple[Any, list[str]]:
    """A region written without names, and the names in the order of their numbers."""
    numbers: dict[str, int] = {captured.inputs[0]: 0}  # the batch is read off the first input
    inside = [captured.node(name) for name in (*region.prologue, *region.nodes)]
    made = {node.name for node in inside}

    def number(node: fx.Node) -> Any:
        known = numbers.setdefault(node.name, len(numbers))
        return ("value", known) if node.name in made else ("value", known, _outside(captured, region, node))

    def number_of(node: fx.Node) -> Any:
        return _Number(number(node))

    operators = []
    for node in inside:
        args = _plain(fx.map_arg((node.args, dict(node.kwargs)), number_of))
        operators.append((str(node.target), args, number(node), _value(node), node.name in captured.buffer_updates))
    anchor = (_value(captured.node(captured.inputs[0])), captured.inputs[0] in region.sources)
    form = (anchor, tuple(operators), _roles(region, numbers))
    return form, list(numbers)


def _roles(region: Region, numbers: dict[str, int]) -> tuple[Any, ...]:
    def of(names: Iterable[str]) -> tuple[int, ...]:
        return tuple(numbers[name] for name in names)

    fields = (region.prologue, region.nodes, region.outputs, region.ports, region.phi, region.tail)
    # Other regions' values are numbered as they are met; which of them are sources is part of each operand.
    return (*(of(names) for names in fields), numbers[region.preactivation], numbers[region.activity])


def _outside(captured: CapturedGraph, region: Region, node: fx.Node) -> tuple[Any, ...]:
    kind = "parameter" if node.name in captured.parameters else "buffer" if node.name in captured.buffers else "value"
    live = node.name in captured.live
    return (kind, node.op, captured.is_trainable(node), node.name in region.sources, live, _value(node))


def _value(node: fx.Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), str(value.device), str(tuple(value.shape)), str(value.stride()))
    return str(value)


@dataclasses.dataclass(frozen=True)
class _Number:
    """A value in an operator's arguments."""

    of: Any


def _plain(argument: Any) -> Any:
    """Arguments in a form that can be a key."""
    if isinstance(argument, (list, tuple)):
        return tuple(_plain(one) for one in argument)
    if isinstance(argument, dict):
        return tuple((key, _plain(one)) for key, one in argument.items())
    return argument if isinstance(argument, _Number) else repr(argument)
