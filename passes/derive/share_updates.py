"""Derives the updates of identical regions once.

Two updates are of one *form* if their rule is the same, if they read values of the same kinds, shapes, strides and
types, and if their regions, their connections and the sources of these are alike but for names. The second takes over
the traced graph of the first; only the names of what it reads and makes differ.

The forward between a region and the source of a bare connection counts only where the rule runs it again.

A rule may read the name of a region or of a connection; then its trace belongs to that region alone. The keys of
parameters and feedback are names too, which a rule may tell apart: updates are of one form only if these keys are
the same up to the numbers in them, as those of `h.3.attn.weight` and `h.4.attn.weight` are.
"""

import dataclasses
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.forms import Forms
from altprop.ir.graph import FeedbackParameter
from altprop.ir.local import LocalGraph
from altprop.ir.loss import Loss
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.ir.updates import LocalUpdate, Value
from altprop.passes.derive.own_feedback import Standing
from altprop.passes.derive.rerun_forward import Stretch
from altprop.passes.derive.update_inputs import UpdateInputs
from altprop.rules.base import Rule

Name = tuple[str, str]
"""A name and what it names: "value" (of the captured graph), "region", "parameter", "feedback" or "noise"."""

_NAMED = {"captured": "value", "loss_gradient": "value", "target": "value"}
_NAMED |= {"feedback": "feedback", "feedback_gradient": "feedback", "noise": "noise"}


@dataclasses.dataclass(frozen=True)
class Form:
    """An update written with numbers in the place of names.

    Attributes:
        key: equal for updates of one form, unless they run the forward of a stretch again.
        stretches: what must be equal too if they do.
        names: in the order of their numbers.
    """

    key: Any
    stretches: Any
    names: tuple[Name, ...]


def form_of(reads: UpdateInputs, rule: str) -> Form:
    """Returns the form of an update.

    Args:
        reads: what it may read.
        rule: text of its rule.
    """
    return _Writer(reads).write(rule)


class _Writer:
    def __init__(self, reads: UpdateInputs) -> None:
        self.reads = reads
        self.graph = reads.graph
        self.numbers: dict[Name, int] = {}

    def write(self, rule: str) -> Form:
        reads = self.reads
        key = (
            rule,
            self._kinds(reads.values),
            tuple(self._local(self.graph.locals[name]) for name in reads.regions),
            self._region(reads.region),
            tuple(self._connection(c) for c in reads.connections),
            tuple(self._parameter(p) for p in reads.parameters),
            tuple(self._standing(name, found) for name, found in reads.own_feedback.items()),
        )
        stretches = (self._kinds(reads.later), *(self._stretch(found) for found in reads.stretches.values()))
        return Form(key, stretches, tuple(self.numbers))

    def _kinds(self, values: Mapping[Value, torch.Tensor]) -> Any:
        return tuple((self._value(key), _kind(fake)) for key, fake in values.items())

    def _number(self, space: str, name: str) -> int:
        return self.numbers.setdefault((space, name), len(self.numbers))

    def _values(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(self._number("value", name) for name in names)

    def _value(self, key: Value) -> Any:
        kind, name, *rest = key
        return (kind, self._number(_NAMED.get(kind, "region"), name), *rest)

    def _local(self, local: LocalGraph) -> Any:
        def role(old: tuple[Any, ...]) -> Any:
            return (old[0], self._number("value", old[1])) if old[0] == "value" else old

        return (
            local.graph,
            tuple(role(old) for old in local.inputs.values()),
            tuple(role(old) for old in local.results),
            tuple((self._number("parameter", name), _pattern(name)) for name in local.theta),
            self._values(local.theta_values),
            self._values(local.sources),
        )

    def _region(self, region: Region) -> Any:
        names = (region.outputs, region.ports, region.phi, region.tail, region.model_outputs)
        ends = self._values((region.preactivation, region.activity))
        return (
            region.shape,
            region.output_shape,
            region.ends_in_activation,
            ends,
            *(self._values(one) for one in names),
        )

    def _connection(self, c: Connection) -> Any:
        feedback = (c.feedback.kind, repr(sorted(c.feedback.options.items())), c.feedback.learning)
        ends = (self._number("region", c.source), self._number("region", c.target))
        return (ends, feedback, self._region(self.graph.region(c.source)))

    def _standing(self, name: str, found: Sequence[Standing]) -> Any:
        def one(standing: Standing) -> Any:
            feedback = standing.connection.feedback
            keys = tuple(None if key is None else self._value(key) for key in (standing.own, standing.noise))
            kind = (feedback.kind, repr(sorted(feedback.options.items())))
            return (self._number("parameter", standing.weight), *keys, kind)

        return (self._number("region", name), tuple(map(one, found)))

    def _stretch(self, stretch: Stretch | RuleError) -> Any:
        if isinstance(stretch, RuleError):
            return str(stretch)

        def operand(node: fx.Node) -> Any:
            return _Number(self._number("value", node.name))

        operators = [
            (str(node.target), repr(fx.map_arg((node.args, node.kwargs), operand)), *self._values([node.name]))
            for node in stretch.nodes
        ]
        return (tuple(operators), self._values((stretch.start, stretch.end)))

    def _parameter(self, p: FeedbackParameter) -> Any:
        stands_for = self._number("parameter", p.stands_for) if p.stands_for else None
        serves = tuple(p.serves(c.name) for c in self.reads.connections)
        own = p.name.removeprefix(f"{p.region}:") if p.region else _pattern(p.name)
        return (self._number("feedback", p.name), own, bool(p.region), stands_for, serves, p.part, p.dtype, p.learning)


@dataclasses.dataclass(frozen=True)
class _Number:
    """A value in an operator's arguments."""

    of: int


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _kind(fake: torch.Tensor) -> Any:
    return (str(fake.dtype), str(fake.device), str(tuple(fake.shape)), str(fake.stride()))


class Derived:
    """The updates that were derived, by their forms; `count` says how many were traced.

    Updates of the library's own rules are kept in the mode's `Forms`, for later compilations. A user's rule may read
    what it likes, a variable of a notebook say, and so may a user's loss: what was derived of them serves this
    compilation alone.
    """

    def __init__(self, forms: Forms, loss: Loss | None) -> None:
        self.count = 0
        self._lasting = forms
        self._passing = Forms()
        self._loss = loss

    def _forms(self, rule: Rule) -> Forms:
        own = type(rule).__module__.startswith("altprop.") and (self._loss is None or self._loss.is_named)
        return self._lasting if own else self._passing

    def _owner(self, rule: Rule) -> Hashable:
        return type(rule), None if self._loss is None else self._loss.name

    def find(self, rule: Rule, form: Form) -> LocalUpdate | None:
        """Returns the update of a form, for the names of this one; None if there is none yet."""
        forms, owner = self._forms(rule), self._owner(rule)
        found = forms.find("update", (owner, form.key)) or forms.find("update", (owner, form.key, form.stretches))
        return None if found is None else _renamed(found[0], found[1], form)

    def add(self, rule: Rule, form: Form, update: LocalUpdate, *, ran_stretch: bool) -> None:
        """Keeps an update; says whether its rule ran the forward of a stretch again."""
        owner = self._owner(rule)
        key = (owner, form.key, form.stretches) if ran_stretch else (owner, form.key)
        self._forms(rule).add("update", key, (update, form))


def _renamed(update: LocalUpdate, old: Form, new: Form) -> LocalUpdate:
    """Returns the same update for the region of another form of the same key."""
    names = dict(zip(old.names, new.names, strict=False))  # those of stretches that no rule ran stand last

    def value(key: Value) -> Value:
        kind, name, *rest = key
        if kind == "gradient":
            rest = [names[("parameter", rest[0])][1]]
        return (kind, names[(_NAMED.get(kind, "region"), name)][1], *rest)

    def all_of(space: str, found: Iterable[str]) -> tuple[str, ...]:
        return tuple(names[(space, name)][1] for name in found)

    finish: Mapping[Value, fx.GraphModule] = {value(key): module for key, module in update.finish.items()}
    return dataclasses.replace(
        update,
        region=names[("region", update.region)][1],
        inputs={placeholder: value(key) for placeholder, key in update.inputs.items()},
        results={value(key): node for key, node in update.results.items()},
        gradients=all_of("parameter", update.gradients),
        feedback_gradients=all_of("feedback", update.feedback_gradients),
        assigned=tuple(value(key) for key in update.assigned),
        finish=finish,
    )
