"""Feedback kinds: what may stand on a connection. One file a direct kind, and one for those along forward edges.

`DIRECT` and `EDGE` are the tables.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules.feedback.bare import Bare
from altprop.rules.feedback.binary import Binary
from altprop.rules.feedback.channel import Channel
from altprop.rules.feedback.convolution import Convolution
from altprop.rules.feedback.dense import Dense
from altprop.rules.feedback.edge import EdgeKind, Forward, Identity, PseudoInverse, Sign, SignBatch, SignFixed
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

DIRECT: Mapping[str, DirectKind] = {
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

EDGE: Mapping[str, EdgeKind] = {
    kind.name: kind for kind in (Forward(), EdgeKind(), Identity(), Sign(), SignBatch(), SignFixed(), PseudoInverse())
}

FORWARD_SHAPED = tuple(EDGE)
"""Kinds that run through the source's forward operators."""

KINDS = (*DIRECT, *EDGE)

__all__ = [
    "AT",
    "BARE",
    "DIRECT",
    "DISTRIBUTIONS",
    "EDGE",
    "FORWARD_SHAPED",
    "KINDS",
    "PLACES",
    "DirectKind",
    "EdgeKind",
    "Identity",
    "Part",
    "Place",
    "as_heard",
    "choose_direct_kind",
    "feedback_of",
    "kind_between",
    "kinds_that_start",
    "shares_positions",
    "width",
]


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
