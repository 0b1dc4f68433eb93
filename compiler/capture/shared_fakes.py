"""Moves a captured graph into a fake-tensor mode that captures share, so that what is derived of one serves the next.

`torch.export` makes a mode and a symbol for the batch at each call. The values of a graph are only forms (types, sizes,
strides, a device). So they can be made again in another mode, with its symbol in the place of theirs. All captures
whose examples have a batch of one size move into one mode, their *home*, and share its `Forms`.

A trace asks a mode about its batch: whether it is below sixteen, where a kernel is chosen by it; whether it is even, or
eight. The mode answers by the example and learns nothing of it, since what holds for one model need not for the next.
What must hold for a graph is noted beside it: see `altprop.ir.batch_facts`.
"""

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx

from altprop.ir.fakes import Fakes
from altprop.ir.forms import Forms
from altprop.ir.torch_private import FakeTensor, ShapeEnv

_KEPT = ("nn_module_stack", "stack_trace")


class NoHomeError(Exception):
    """A graph has values that no other mode can be given."""


class Home:
    """A fake-tensor mode with one batch, and what was derived in it.

    Attributes:
        mode: the mode.
        batch: the size of the batch, a `torch.SymInt`.
        forms: what was derived.
    """

    def __init__(self, example: int) -> None:
        fakes = Fakes.fresh(example)
        self.mode, self.batch = fakes.mode, fakes.batch
        self.mode.allow_non_fake_inputs = True  # losses and rules make tensors of their own, as in torch.export's modes
        self.forms = Forms()
        self._values: dict[Any, torch.Tensor] = {}
        self._sizes: dict[sympy.Expr, torch.SymInt] = {}
        self.symbol = self.batch.node.expr

    @property
    def _environment(self) -> ShapeEnv:
        environment = self.mode.shape_env
        assert environment is not None
        return environment

    def forget_questions(self) -> None:
        """Drops what torch lists of the questions that were asked."""
        self._environment.guards.clear()

    def values(self, graph: fx.Graph, batch: torch.SymInt) -> dict[fx.Node, Any]:
        """Returns the values of a graph in this mode, by node.

        Raises:
            NoHomeError: one of them cannot be made here.
        """
        mover = _Mover(self, batch)
        return {node: mover.move(node.meta["val"]) for node in graph.nodes if "val" in node.meta}

    def tensor(self, like: torch.Tensor, sizes: tuple[Any, ...], strides: tuple[Any, ...]) -> torch.Tensor:
        """Returns the value of a form; values of one form are one value."""
        key = (like.dtype, like.device, tuple(map(str, sizes)), tuple(map(str, strides)))
        if key not in self._values:
            with self.mode:
                self._values[key] = torch.empty_strided(sizes, strides, dtype=like.dtype, device=like.device)
        return self._values[key]

    def size(self, expression: sympy.Expr) -> torch.SymInt:
        """Returns the size of an expression in the batch's symbol."""
        if expression not in self._sizes:
            made = self._environment.create_symintnode(expression, hint=None)
            if not isinstance(made, torch.SymInt):
                raise NoHomeError(f"{expression} is no size")
            self._sizes[expression] = made
        return self._sizes[expression]


class _Mover:
    """Makes the values of one graph in a home."""

    def __init__(self, home: Home, batch: torch.SymInt) -> None:
        self._home = home
        self._symbol = batch.node.expr
        if not self._symbol.is_Symbol:
            raise NoHomeError(f"the batch is {self._symbol}")
        self._names: Mapping[Any, Any] = {self._symbol: home.symbol}

    def move(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(self.move(one) for one in value)
        if isinstance(value, FakeTensor):
            return self._tensor(value)
        if isinstance(value, torch.SymInt):
            return self._size(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise NoHomeError(f"a value is a {type(value).__name__}")

    def _tensor(self, value: FakeTensor) -> torch.Tensor:
        if value.layout is not torch.strided or value.is_conj() or value.is_neg():
            raise NoHomeError("a tensor is not dense")
        sizes, strides = (tuple(self._size(size) for size in form) for form in (value.shape, value.stride()))
        return self._home.tensor(value, sizes, strides)

    def _size(self, size: Any) -> Any:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression.is_Integer:
            return int(expression)
        if expression.free_symbols != {self._symbol}:
            raise NoHomeError(f"a size is {expression}")
        return self._home.size(expression.xreplace(self._names))


_HOMES: dict[int, Home] = {}


def move_home(graph: fx.Graph, batch: Any) -> Home | None:
    """Moves the values of a graph into the home of its batch.

    Args:
        graph: a captured graph; its nodes get other values.
        batch: the size of the batch.

    Returns:
        The home; None where the graph stays in its own mode, as one whose batch is fixed does.
    """
    if not isinstance(batch, torch.SymInt) or batch.node.hint is None:
        return None
    example = int(batch.node.hint)
    if example not in _HOMES:
        _HOMES[example] = Home(example)
    home = _HOMES[example]
    home.forget_questions()
    try:
        values = home.values(graph, batch)
    except NoHomeError:
        return None
    for node in graph.nodes:
        kept = {key: node.meta[key] for key in _KEPT if key in node.meta}
        node.meta = kept | ({"val": values[node]} if node in values else {})
    return home
