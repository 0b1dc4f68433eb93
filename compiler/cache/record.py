"""What of a derived graph is kept in a file, and how a graph is made of it again.

A *record* is a JSON document: the feedback parameters, which connections pass no weights, what each update moves and
which noise it wants, how programs take turns, and the names of the programs and of the passes. The updates and the
local graphs themselves are not in it: who asks for them has the passes run.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from altprop.ir.alternate import Alternation
from altprop.ir.fakes import Fakes, format_fake
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.plan import Connection
from altprop.ir.size_text import TextError
from altprop.ir.starts import Start
from altprop.ir.updates import LocalUpdate, UpdateOnDemand
from altprop.passes.insert_feedback import IDENTITY

_TUPLES = ("shape", "shared")
_FEEDBACK = {field.name for field in dataclasses.fields(FeedbackParameter)}


class RecordError(Exception):
    """A graph has no record, or a text is none."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What was kept of a derived graph.

    Attributes:
        feedback: feedback parameters by name.
        updates: what each update moves, by region.
        alternation: how programs take turns, or None.
        programs: names of the programs that can be made.
        stages: names of the passes that ran behind the wiring.
        others: names of the feedback parameters that only the programs of other rules read.
        identities: names of the connections over edges without weights.
    """

    feedback: Mapping[str, FeedbackParameter]
    updates: Mapping[str, Mapping[str, Any]]
    alternation: Alternation | None
    programs: tuple[str, ...]
    stages: tuple[str, ...]
    others: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()

    def text(self) -> str:
        """Returns the record as JSON.

        Raises:
            RecordError: something in it has no form there.
        """
        turns = self.alternation
        document = {
            "feedback": [dataclasses.asdict(one) for one in self.feedback.values()],
            "updates": self.updates,
            "alternation": None if turns is None else dataclasses.asdict(turns) | {"exact": sorted(turns.exact)},
            "programs": self.programs,
            "stages": self.stages,
            "others": self.others,
            "identities": self.identities,
        }
        try:
            text = json.dumps(document, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecordError(str(error)) from error
        if parse_record(text) != self:
            raise RecordError("feedback has settings that would read back otherwise")
        return text

    def connections(self, wired: ErrorGraph) -> tuple[Connection, ...]:
        """Returns the connections of the derived graph, of those of the wired one."""
        none = {*self.identities}
        return tuple(dataclasses.replace(c, feedback=IDENTITY) if c.name in none else c for c in wired.connections)

    def updates_on_demand(
        self, fakes: Fakes, derive: Callable[[], Mapping[str, LocalUpdate]]
    ) -> dict[str, LocalUpdate]:
        """Returns the updates: what they move is known, all else is derived when it is asked for.

        Raises:
            TextError: the form of some noise cannot be read.
        """
        return {
            region: UpdateOnDemand.of(
                region,
                tuple(one["gradients"]),
                tuple(one["feedback_gradients"]),
                {name: fakes.read(form) for name, form in one["noise"].items()},
                tuple(tuple(value) for value in one["assigned"]),
                functools.partial(_one_of, derive, region),
            )
            for region, one in self.updates.items()
        }


def _one_of(derive: Callable[[], Mapping[str, LocalUpdate]], region: str) -> LocalUpdate:
    return derive()[region]


def record_of(graph: ErrorGraph, own: ErrorGraph, stages: tuple[str, ...]) -> Record:
    """Returns what is kept of a derived graph.

    Args:
        graph: the graph.
        own: the same without the programs of other rules that take turns with its own.
        stages: names of the passes that ran behind the wiring.

    Raises:
        RecordError: something in it has no text.
    """
    try:
        updates = {region: _update(update) for region, update in graph.updates.items()}
    except TextError as error:
        raise RecordError(str(error)) from error
    others = tuple(name for name in graph.feedback if name not in own.feedback)
    identities = tuple(c.name for c in graph.connections if c.feedback == IDENTITY)
    return Record(graph.feedback, updates, graph.alternation, tuple(graph.programs), stages, others, identities)


def _update(update: LocalUpdate) -> dict[str, Any]:
    return {
        "gradients": list(update.gradients),
        "feedback_gradients": list(update.feedback_gradients),
        "noise": {name: format_fake(value) for name, value in update.noise.items()},
        "assigned": [list(value) for value in update.assigned],
    }


def parse_record(text: str) -> Record:
    """Returns the record of a text.

    Raises:
        RecordError: it is none.
    """
    try:
        document = json.loads(text)
        feedback = [_feedback(one) for one in document["feedback"]]
        turns = document["alternation"]
        return Record(
            {one.name: one for one in feedback},
            {str(region): _checked(one) for region, one in document["updates"].items()},
            None if turns is None else Alternation(turns["probability"], turns["share"], frozenset(turns["exact"])),
            tuple(map(str, document["programs"])),
            tuple(map(str, document["stages"])),
            tuple(map(str, document["others"])),
            tuple(map(str, document["identities"])),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from error


def _feedback(found: Mapping[str, Any]) -> FeedbackParameter:
    if set(found) != _FEEDBACK:
        raise ValueError(f"feedback has the fields {', '.join(found)}")
    tuples = {name: tuple(found[name]) for name in _TUPLES}
    return FeedbackParameter(**{**found, **tuples, "start": Start(**found["start"])})


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"gradients": list, "feedback_gradients": list, "noise": dict, "assigned": list}
    if set(found) != set(kinds) or any(not isinstance(found[name], kind) for name, kind in kinds.items()):
        raise ValueError(f"an update has the fields {', '.join(found)}")
    return dict(found)
