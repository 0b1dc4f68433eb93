"""Finds the linear operator that a weight belongs to, so that noise can be sent through it alone.

A weight mirror correlates white noise at an operator's input with the operator's own output, in front of its norm and
its activation: there the mean of the correlation is the weight. A norm would rescale the answer, and mix into it what
it knows of the batch.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.ir.sizes import line_in_batch
from altprop.ir.torch_private import schema_of
from altprop.passes.cut.operator_kinds import is_floating, is_mixing, is_moving, is_recurrent
from altprop.passes.derive.interpret import run_nodes

# Where an operator has the two factors that it multiplies.
_FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "convolution": (0, 1)}

# What each weight of a recurrent layer multiplies, by the names of the operator's arguments.
_RECURRENT = {"w_ih": "x", "w_hh": "h", "weight": "h", "projection": "c"}


@dataclasses.dataclass(frozen=True)
class Mirror:
    """One operator that multiplies an input by a weight.

    Attributes:
        operator: the operator, in the captured graph.
        operand: its input, in whose place noise is put.
        weight: the parameter, or what operators on parameters alone made of it (a norm of weights), in its shape.
        moves: the operators that lead from `weight` to what the operator reads.
        positions: how often a sample meets each number of the weight.
    """

    operator: fx.Node
    operand: fx.Node
    weight: fx.Node
    moves: tuple[fx.Node, ...]
    positions: float

    def respond(self, value: Callable[[fx.Node], Any], noise: torch.Tensor) -> torch.Tensor:
        """Returns the correlation of noise with the answer, in the weight's shape, summed over samples.

        Args:
            value: looks up what the forward had.
            noise: of the operand's shape.
        """
        inside = {self.operand, self.weight, *self.moves}
        operators = [*self.moves, self.operator]
        if is_recurrent(self.operator):  # its product alone, without the gates and the other steps
            operators = list(self.moves)
        read = (n for node in operators for n in node.all_input_nodes if n not in inside)
        known: dict[fx.Node, Any] = {**{n: value(n) for n in read}, self.operand: noise}

        def answer(weight: torch.Tensor) -> torch.Tensor:
            values = run_nodes(operators, {**known, self.weight: weight})
            if is_recurrent(self.operator):
                return torch.nn.functional.linear(noise, values[operators[-1] if operators else self.weight])
            made = values[self.operator]
            result: torch.Tensor = made[0] if isinstance(made, tuple | list) else made
            return result

        made, pull, *_ = torch.func.vjp(answer, value(self.weight))
        correlation: torch.Tensor = pull(made)[0]
        return correlation if self.positions == 1 else correlation / self.positions


def mirrors_of(captured: CapturedGraph, region: Region, parameters: Iterable[str]) -> dict[str, Mirror]:
    """Returns the operators that some parameters of a region belong to, as far as they multiply anything."""
    found = {parameter: _mirror_of(captured, region, parameter) for parameter in parameters}
    return {parameter: mirror for parameter, mirror in found.items() if mirror is not None}


def _mirror_of(captured: CapturedGraph, region: Region, parameter: str) -> Mirror | None:
    start = next(captured.node(place) for place, name in captured.parameters.items() if name == parameter)
    made = [start]  # the parameter, and what is made of it and of other parameters alone
    for name in region.prologue:
        made += [captured.node(name)] if _reads_any(captured.node(name), made) else []
    fixed = {*region.prologue, *captured.parameters, *captured.buffers, *captured.constants}
    readers = [n for name in region.nodes if _reads_any(n := captured.node(name), made)]
    pairs = [(n, operand) for n in readers if (operand := _operand(n, made, fixed)) is not None]
    if not pairs:
        return None
    operator, operand = next((pair for pair in pairs if is_mixing(pair[0])), pairs[0])
    read = next(n for n in reversed(made) if n in operator.all_input_nodes)
    weight, moves = _behind_moves(read, start)
    positions = _positions(captured, operator, operand, weight)
    if weight.meta["val"].shape != start.meta["val"].shape:  # such as the magnitudes of a weight norm
        weight, moves = start, tuple(node for node in made if node is not start)
    return Mirror(operator, operand, weight, moves, positions)


def _reads_any(node: fx.Node, made: Iterable[fx.Node]) -> bool:
    return any(source in made for source in node.all_input_nodes)


def _operand(node: fx.Node, made: Sequence[fx.Node], fixed: set[str]) -> fx.Node | None:
    """What an operator multiplies by a weight, or reads beside it."""
    if is_recurrent(node):
        return _state(node, made)
    factors = [node.args[place] for place in _FACTORS.get(short_name(node), ())]
    if any(one in made for one in factors):
        found = [one for one in factors if isinstance(one, fx.Node) and one not in made]
    else:
        found = [one for one in node.all_input_nodes if one not in made]
    return next((one for one in found if one.name not in fixed and is_floating(one)), None)


def _state(node: fx.Node, made: Sequence[fx.Node]) -> fx.Node | None:
    """What a weight of a recurrent layer multiplies."""
    names = [argument.name for argument in schema_of(node.target).arguments]
    given = dict(zip(names, node.args, strict=False))
    found = (given[_RECURRENT[name]] for name, value in given.items() if value in made and name in _RECURRENT)
    return next((one for one in found if isinstance(one, fx.Node)), None)


def _behind_moves(read: fx.Node, start: fx.Node) -> tuple[fx.Node, tuple[fx.Node, ...]]:
    """The weight behind what only moves it, and the moves."""
    moves: list[fx.Node] = []
    while read is not start and is_moving(read):
        moves.insert(0, read)
        read = read.all_input_nodes[0]
    return read, tuple(moves)


def _positions(captured: CapturedGraph, operator: fx.Node, operand: fx.Node, weight: fx.Node) -> float:
    """Multiplications of a sample, over the numbers of the weight."""
    result = operator.meta["val"]
    result = result[0] if isinstance(result, tuple | list) else result
    size, name = int(weight.meta["val"].numel()), short_name(operator)
    if is_recurrent(operator):
        return _units(captured, operand.meta["val"]) / int(operand.meta["val"].shape[-1])
    if name == "convolution":
        transposed = bool(operator.args[6])
        return _units(captured, operand.meta["val"] if transposed else result) / int(weight.meta["val"].shape[0])
    if name in _FACTORS:
        left = operator.args[_FACTORS[name][0]] is operand
        return _units(captured, result) * int(operand.meta["val"].shape[-1 if left else -2]) / size
    return _units(captured, result) / size


def _units(captured: CapturedGraph, value: torch.Tensor) -> int:
    """Number of units of one sample."""
    if isinstance(captured.batch, int):
        return value.numel() // captured.batch
    slope, offset = line_in_batch(value.numel(), captured.batch) or (0, 1)
    return slope or offset
