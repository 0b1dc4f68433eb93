"""Feedback kinds: what may stand on a connection. One file a direct kind, and one for those along forward edges.

`DIRECT` and `EDGE` are the tables; `add_kind` adds one of a user's own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from altprop.ir.errors import PlanError
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.feedback.bare import Bare
from altprop.rules.feedback.binary import Binary
from altprop.rules.feedback.channel import Channel
from altprop.rules.feedback.convolution import Convolution
from altprop.rules.feedback.dense import Dense
from altprop.rules.feedback.edge import EdgeKind, Forward, Identity, PseudoInverse, SignBatch, SignFixed, SignOfWeight
from altprop.rules.feedback.kind import DISTRIBUTIONS, DirectKind, Part, Place, width
from altprop.rules.feedback.low_rank import LowRank
from altprop.rules.feedback.position import Position, shares_positions
from altprop.rules.feedback.product import Product
from altprop.rules.feedback.sparse import Sparse
from altprop.rules.feedback.unified import Unified

AT = "at"
"""An option that all direct kinds take: where the error of an output region is taken, one of `PLACES`."""

PLACES = ("preactivation", "output")

BARE = Bare.name
"""The kind without a parameter and without a message of its own."""

DIRECT: dict[str, DirectKind] = {
    kind.name: kind
    for kind in (
        Dense(),
        Position(),
        Channel(),
        Convolution(),
        Unified(),
        Sparse(),
        Binary(),
        LowRank(),
        Product(),
        Bare(),
    )
}

EDGE: dict[str, EdgeKind] = {
    kind.name: kind
    for kind in (Forward(), EdgeKind(), Identity(), SignOfWeight(), SignBatch(), SignFixed(), PseudoInverse())
}

__all__ = [
    "AT",
    "BARE",
    "DIRECT",
    "DISTRIBUTIONS",
    "EDGE",
    "PLACES",
    "DirectKind",
    "EdgeKind",
    "Identity",
    "Part",
    "Place",
    "add_kind",
    "as_heard",
    "choose_direct_kind",
    "feedback_of",
    "kind_between",
    "kinds_that_start",
    "shares_positions",
    "width",
]


def add_kind(kind: DirectKind | EdgeKind) -> None:
    """Adds a kind of feedback, which plans and rules then know by its name.

    Raises:
        PlanError: it has no name, or that of another kind.
    """
    known: DirectKind | EdgeKind | None = DIRECT.get(kind.name) or EDGE.get(kind.name)
    if not kind.name or (known is not None and type(known).__module__.startswith("altprop.")):
        raise PlanError(f'{type(kind).__name__}: name="{kind.name}"; give the kind of feedback a name of its own.')
    if isinstance(kind, DirectKind):
        DIRECT[kind.name] = kind
    else:
        EDGE[kind.name] = kind


def kinds_that_start(start: str) -> list[str]:
    """Returns the names of the kinds that can start so; see `altprop.ir.starts`."""
    return [
        *(name for name, kind in EDGE.items() if start in kind.starts),
        *(name for name, kind in DIRECT.items() if start in kind.starts),
    ]


def kind_between(kind: str, source: Region, target: Region) -> str:
    """Returns the kind that a rule asks for; where that is "auto" or does not fit, `choose_direct_kind`."""
    wanted = DIRECT.get(kind)
    if kind == "auto" or (wanted is not None and not wanted.fits(source, target)):
        return choose_direct_kind(source, target)
    return kind


def as_heard(source: Region, options: Mapping[str, Any]) -> Region:
    """Returns the source of a connection, as one whose error is taken where the connection's option `at` says.

    Args:
        source: the region.
        options: of the connection; `at` is "preactivation", where nothing else is said, or "output".
    """
    return dataclasses.replace(source, ends_in_activation=False) if options.get(AT) == "output" else source


def choose_direct_kind(source: Region, target: Region) -> str:
    """By position where the source's error and the target's activity share positions, else dense."""
    return "position" if shares_positions(source.error_shape, target.shape) else "dense"


def feedback_of(kind: str, options: Mapping[str, Any], extra: Mapping[str, Any], learning: bool = False) -> Feedback:
    """Returns feedback of a kind.

    Args:
        kind: its name.
        options: options that a rule has for all kinds; those that this kind does not take are left out.
        extra: options of this kind; what it does not take is refused later, with the connection's name.
        learning: whether a rule moves it.
    """
    known: DirectKind | EdgeKind | None = DIRECT.get(kind) or EDGE.get(kind)
    taken = known.options if known is not None else tuple(options)
    return Feedback(kind, {k: v for k, v in options.items() if k in taken} | dict(extra), learning)
