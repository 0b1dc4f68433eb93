"""Lets a whole net settle: joins what the rules of all regions do in a round into the body of one loop.

    state_i       what `Rule.begin` makes of a region's forward
    entered       what `Rule.enter` puts in the place of the net's inputs, in front of a phase
    round         every region is run at what the states of those below show; errors are sent in the plan's order, and
                  `Rule.relax` moves each state
    repeat        so many rounds, as one operator whose carried values are the states; one for each phase
    settled       the whole net at the states that a phase ended with, its errors at the outputs included

What a round makes of values that no round changes stands in front of the loop. Values at the end of a phase bear their
names in front of which `("settled", phase)` stands; an update reads them in the place of those that the forward left.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch

from altprop.ir.errors import RuleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.rounds import BEFORE, Phase
from altprop.ir.updates import Value
from altprop.passes.derive.loss_of_prediction import loss_of_prediction
from altprop.passes.derive.rule_view import RuleView
from altprop.passes.derive.trace_loop import loop
from altprop.passes.derive.traced_region import TracedLocal
from altprop.passes.derive.update_inputs import UpdateInputs, key_of
from altprop.rules.base import Rule

Values = dict[Value, torch.Tensor]
States = dict[tuple[str, str], torch.Tensor]
"""States by region and name."""


def phases_of(graph: ErrorGraph) -> tuple[Phase, ...]:
    """Returns the phases in which a net settles; none where its rules need no rounds.

    Raises:
        RuleError: some of its regions do not take part.
    """
    found = {name: rule.wiring.phases(rule) for name, rule in graph.rules.items() if rule is not None}
    phases = next((one for one in found.values() if one), ())
    for name, own in found.items() if phases else ():
        if own != phases and not (graph.region(name).is_output and not own):
            raise RuleError(
                f'region "{name}" follows {graph.rules[name]}, and others settle in rounds of the whole net: give all '
                "regions one rule with the same options, or freeze some."
            )
    return phases


class Settling:
    """The rounds of a net.

    Attributes:
        phases: in their order.
        made: fake values of what settled, by name.
    """

    def __init__(self, graph: ErrorGraph, loss: Loss | None) -> None:
        """Takes a graph with feedback, and the loss."""
        self.phases = phases_of(graph)
        self.made: Values = {}
        self._entered: dict[str, tuple[str, ...]] = {}
        self._graph = graph
        self._captured = graph.captured
        self._loss = loss
        self._rules = {name: rule for name, rule in graph.rules.items() if rule is not None}
        self._reads = {name: UpdateInputs(graph, None, name, rule) for name, rule in self._rules.items()}
        self._views = {name: RuleView(self._reads[name], rule, loss) for name, rule in self._rules.items()}

    @property
    def values(self) -> Values:
        """All that the rounds may read."""
        return {key: fake for reads in self._reads.values() for key, fake in reads.values.items()}

    def run(self, values: Values) -> Values:
        """Runs all phases under a trace; returns what settled."""
        states: dict[str, States] = {BEFORE: self._start(values)}
        net: dict[str, Values] = {BEFORE: values}
        found: Values = {}
        for phase in self.phases:
            entered = self._enter(net[phase.start], phase)
            self._entered[phase.name] = tuple(name for _, name in entered)
            given = {**values, **entered}
            states[phase.name] = self._repeat(given, states[phase.start], phase)
            here = net[phase.name] = self._at(given, states[phase.name], phase)
            changed = {key: value for key, value in here.items() if values.get(key) is not value}
            found |= {("settled", phase.name, *key): value for key, value in changed.items()}
        return found

    def _start(self, values: Values) -> States:
        """The states of regions that have any; all errors lie above them."""
        found: States = {}
        for name, rule in self._rules.items():
            if rule.wiring.phases(rule):
                local = self._views[name].traced(name, values)
                found |= {(name, key): value for key, value in rule.begin(local).items()}
        return found

    def _enter(self, here: Values, phase: Phase) -> Values:
        """What the net reads in a phase in the place of its inputs; nothing where its rules leave them."""
        if all(type(rule).enter is Rule.enter for rule in self._rules.values()):
            return {}
        seen = self._feel(here, phase)[1]
        made = {name: value for key, rule in self._rules.items() for name, value in rule.enter(*seen[key]).items()}
        return {("captured", name): value for name, value in made.items()}

    def _at(self, values: Values, states: States, phase: Phase) -> Values:
        """All values of the net at some states, and at the inputs that were entered."""
        here: Values = dict(values)
        here |= {("state", *key): value for key, value in states.items()}
        changed: dict[str, torch.Tensor] = {name: here["captured", name] for name in self._entered[phase.name]}
        for region in self._graph.regions:
            local = self._local(region.name, here, phase)
            read = {n for n in local.placeholders if n in changed}
            if read:
                local = local.moved(sources={name: changed[name] for name in read})
                here |= _forward_values(local)
            shown = self._shown(region.name, local)
            outputs = local.show(shown) if shown is not None else local.outputs_at(local.z) if read else {}
            changed |= outputs
            here |= {("captured", name): value for name, value in outputs.items()}
        return here | self._loss_gradients(here, changed)

    def _local(self, name: str, here: Values, phase: Phase) -> TracedLocal:
        view = self._views.get(name) or next(iter(self._views.values()))
        return view.traced(name, here, phase)

    def _shown(self, name: str, local: TracedLocal) -> torch.Tensor | None:
        rule = self._rules.get(name)
        return rule.shown(local) if rule is not None and local.state else None

    def _loss_gradients(self, here: Values, changed: Mapping[str, torch.Tensor]) -> Values:
        """The loss's gradient at outputs that are not those of the forward any more."""
        found: Values = {}
        for name in dict.fromkeys(name for name in self._captured.outputs if name and name in changed):
            self._refuse_several()
            assert self._loss is not None
            of = functools.partial(loss_of_prediction, self._captured, self._loss, target=here["target", name])
            found["loss_gradient", name] = torch.func.grad(of)(here["captured", name])
        return found

    def _refuse_several(self) -> None:
        if self._loss is None or (self._loss.structured and not self._captured.out_spec.is_leaf()):
            raise RuleError(
                "a net that settles takes its loss of one prediction after the other, and this model returns several, "
                "or a structure: return the prediction alone, or use a rule without rounds, such as dfa."
            )

    def _feel(self, values: Values, phase: Phase) -> tuple[Values, dict[str, Any]]:
        """Sends all errors, in the plan's order; returns all values, and what each rule sees."""
        here, seen = dict(values), {}
        assert self._graph.plan is not None
        for name in self._graph.plan.order():
            if name in self._rules:
                view = self._views[name]
                local, incoming = seen[name] = view.look(here, phase)
                _, _, felt = view.feel(local, incoming)
                here |= dict(felt)
        return here, seen

    def _round(self, values: Values, states: States, phase: Phase) -> States:
        _, seen = self._feel(self._at(values, states, phase), phase)
        moved = {name: self._rules[name].relax(*seen[name]) for name in dict.fromkeys(name for name, _ in states)}
        return {(name, key): moved[name][key] for name, key in states}

    def _repeat(self, values: Values, states: States, phase: Phase) -> States:
        """The rounds of a phase as one operator."""
        if not states or not phase.rounds:
            return states
        names, keys = list(states), list(values)

        def round_of(*args: torch.Tensor) -> list[torch.Tensor]:
            carried, read = args[: len(names)], args[len(names) :]
            made = self._round(dict(zip(keys, read, strict=True)), dict(zip(names, carried, strict=True)), phase)
            return [made[name] for name in names]

        carried, read = [states[name] for name in names], [values[key] for key in keys]
        made = loop(round_of, carried, read, phase.rounds, self._captured, anchor=0)
        return dict(zip(names, made, strict=True))


def _forward_values(local: TracedLocal) -> Values:
    """What a region that was run anew made, by names across the program."""
    found: Values = {}
    for node, value in local.known.items():
        key = key_of(local.local, node)
        if key is not None and node.op != "placeholder" and isinstance(value, torch.Tensor):
            found[key] = value
    ends = {role[1]: node for role, node in local.local.results.items() if role[0] == "value"}
    return found | {("captured", name): local.known[node] for name, node in ends.items() if node is not None}
