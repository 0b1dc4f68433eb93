"""Colours and lines of drawings: each kind of feedback has its colour; learned is solid, fixed is dashed."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from altprop.ir.drawing.as_networkx import Network
from altprop.ir.plan import FROZEN

BOXES = ("input", "operator", "region")
FORWARD = "#4a5568"
REGION_FILL, REGION_EDGE = "#eef3fb", "#3b6ea8"
FROZEN_FILL, FROZEN_EDGE = "#f3f4f6", "#9aa3b2"
LEARNER_FILL, LEARNER_EDGE = "#eaf6ec", "#2f7d43"
ERROR_FILL, ERROR_EDGE = "#fdece6", "#b5432a"
NOTE = "#5a6272"
BAND = "#f6f7f9"

_KINDS = {
    "dense": "#c2410c",
    "position": "#7c3aed",
    "channel": "#0f766e",
    "forward": "#15803d",
    "transpose": "#334155",
    "identity": "#64748b",
}
_OTHERS = ("#be185d", "#a16207", "#0369a1", "#4d7c0f", "#6b21a8", "#9f1239")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the legend: a line, or a circle, and what it means."""

    label: str
    colour: str
    width: float
    dashed: bool = False
    circle: bool = False


def box_colours(values: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the colours of a box, inside and edge: inputs white, frozen regions grey, learners green, others blue."""
    if values["kind"] == "input":
        return "white", FROZEN_EDGE
    if values.get("learner") and values.get("rule") != FROZEN:
        return LEARNER_FILL, LEARNER_EDGE
    return (FROZEN_FILL, FROZEN_EDGE) if values.get("rule") == FROZEN else (REGION_FILL, REGION_EDGE)


def colour_of(kinds: Iterable[str]) -> Mapping[str, str]:
    """Returns a colour for each kind of feedback: the common kinds have their own, others come in order."""
    colours: dict[str, str] = {}
    for kind in kinds:
        others = [name for name in colours if name not in _KINDS]
        colours.setdefault(kind, _KINDS.get(kind, _OTHERS[len(others) % len(_OTHERS)]))
    return colours


def feedback_kinds(network: Network) -> list[str]:
    """Returns the kinds of feedback in a drawing, in alphabetical order."""
    return sorted({str(v["feedback"]) for _, _, v in network.edges(data=True) if v["kind"] == "skip-error"})
