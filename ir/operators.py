"""What is known of operators, from their schemas and tags, in one place.

What an operator *writes* are arguments that it changes in place. What its value *shares* are arguments in whose memory
it may lie. An operator *draws* if it takes random numbers, and *fills* if it makes a tensor of one number.
"""

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.torch_private import OpOverload, OpOverloadPacket, has_any_kernel, schema_of

aten = torch.ops.aten

# Functions of Python that stand in a program beside operators, for numbers and for tuples, by their names in its text.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_float", "sym_int", "sym_not", "sym_ite", "sym_sum")
    },
}
_NAMES = {function: name for name, function in FUNCTIONS.items()}
_OPERATOR = re.compile(r"([A-Za-z]\w*)\.(\w+)(?:\.(\w+))?")

# What fills: its number, or where it stands among the arguments.
_FILLS: Mapping[str, float | str] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1),
    **dict.fromkeys(("full", "full_like", "new_full"), "fill_value"),
}
# Arguments that say how often an operator lets a number fall; where they are 0, nothing is drawn.
_CHANCES = ("dropout_p", "dropout")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the schema and the tags of an operator say.

    Attributes:
        name: such as "add" of `aten.add.Tensor`.
        arguments: names of its arguments, in order.
        writes: names of those that it writes into.
        shares: names of those whose memory its value may have.
        draws: whether it may draw random numbers.
        chance: the argument that says how often, or "".
        pointwise: whether each element of its value comes of one element of each argument.
    """

    name: str
    arguments: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    draws: bool = False
    chance: str = ""
    pointwise: bool = False


@functools.cache
def facts(target: Any) -> Facts:
    """Returns the facts of an operator, or of a function of Python."""
    if not isinstance(target, OpOverload):
        plain = target is operator.getitem
        return Facts("getitem" if plain else getattr(target, "__name__", str(target)))
    schema = schema_of(target)
    names = tuple(argument.name for argument in schema.arguments)
    aliased = [argument for argument in schema.arguments if argument.alias_info is not None]
    shares = tuple(one.name for one in aliased) if any(r.alias_info is not None for r in schema.returns) else ()
    return Facts(
        name=schema.name.split("::")[-1],
        arguments=names,
        writes=tuple(one.name for one in aliased if one.alias_info is not None and one.alias_info.is_write),
        # A reshape copies only where it must.
        shares=names[:1] if "reshape" in str(target) else shares,
        draws=torch.Tag.nondeterministic_seeded in target.tags,
        chance=next((name for name in names if name in _CHANCES), ""),
        pointwise=torch.Tag.pointwise in target.tags,
    )


def _of(node: fx.Node) -> Facts:
    return facts(node.target) if node.op == "call_function" else Facts("")


def short_name(node: fx.Node) -> str:
    """Returns `"relu"` for `aten.relu.default`, `"getitem"` for `operator.getitem`, `""` for what is no operator."""
    return _of(node).name


def argument(node: fx.Node, name: str) -> Any:
    """Returns the argument of a name, by whatever way it is given; None if it is left out."""
    names = _of(node).arguments
    place = names.index(name) if name in names else len(node.args)
    return node.args[place] if place < len(node.args) else node.kwargs.get(name)


def writes(node: fx.Node) -> bool:
    """Whether an operator writes into one of its arguments."""
    return bool(_of(node).writes)


def written(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments that an operator writes into."""
    return _nodes(node, _of(node).writes)


def shared(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments that the node's value may share memory with."""
    if node.target is operator.getitem:
        source = node.all_input_nodes[0]
        return [source] if shared(source) else []
    return _nodes(node, _of(node).shares)


def _nodes(node: fx.Node, names: tuple[str, ...]) -> list[fx.Node]:
    given = [argument(node, name) for name in names]
    return [one for one in given if isinstance(one, fx.Node)]


def is_view(node: fx.Node) -> bool:
    """Whether the node's value may share memory with one of its arguments."""
    return bool(shared(node))


def is_random(node: fx.Node) -> bool:
    """Whether an operator draws random numbers, so that to run it twice is not to run it once."""
    known = _of(node)
    return known.draws and not (known.chance and argument(node, known.chance) in (None, 0, False))


def is_pointwise(node: fx.Node) -> bool:
    """Whether torch says that each element of the value comes of one element of each argument."""
    return _of(node).pointwise


def is_fill(node: fx.Node, number: float) -> bool:
    """Whether an operator makes a tensor that is one number everywhere."""
    fill = _FILLS.get(_of(node).name)
    found = argument(node, fill) if isinstance(fill, str) else fill
    return isinstance(found, int | float) and found == number


def operator_text(target: Any) -> str | None:
    """Returns an operator's name, `"aten.add.Tensor"`, or `"aten.relu"` for its only or default form.

    None for what is neither an operator nor one of `FUNCTIONS`.
    """
    if isinstance(target, OpOverload):
        return str(target).removesuffix(".default")
    return _NAMES.get(target) if callable(target) else None


def operator_called(text: str) -> Any:
    """Returns the operator or function that `operator_text` called so, or None if there is none here."""
    if text in FUNCTIONS:
        return FUNCTIONS[text]
    match = _OPERATOR.fullmatch(text)
    if match is None:
        return None
    packet = getattr(getattr(torch.ops, match[1], None), match[2], None)
    if not isinstance(packet, OpOverloadPacket):
        return None
    found = getattr(packet, match[3] or "default", None)
    return found if isinstance(found, OpOverload) and _computes(found) else None


def _computes(target: OpOverload) -> bool:
    """Whether an operator is one that models call: not one of scripts alone, such as `save`, nor one of files."""
    files = any("file" in argument.name for argument in schema_of(target).arguments)
    return not files and has_any_kernel(target.name())
