"""How a rule wants to be wired: data, beside the arithmetic of its functions.

The plans, the passes and the pipeline read it. Most of it are plain values. Where an option of the rule decides, it is
a function whose first argument is the rule.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from altprop.ir.alternate import Alternation
from altprop.ir.errors import PlanError
from altprop.ir.plan import Connection, Feedback
from altprop.ir.region import Region
from altprop.ir.rounds import Phase
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.feedback import BARE, choose_direct_kind

Globs = Mapping[str, Iterable[str]]


def usual_feedback(rule: Any, source: Region, target: Region, adjacent: bool) -> Feedback:
    """A random matrix, by position where source and target share positions; nothing for a bare rule.

    It is learned where the rule says how it moves.
    """
    if rule.wiring.bare:
        return Feedback(BARE)
    return Feedback(choose_direct_kind(source, target), learning=rule.moves_feedback)


def usual_edge_feedback(rule: Any, source: Region, target: Region) -> Feedback:
    """An own tensor in the place of each of the source's weights, learned if the rule's usual feedback is.

    Scale and distribution are those of the usual feedback, but what would be "normal" is drawn as torch draws weights.
    A rule that follows the edges anyway has there what it has everywhere.

    Raises:
        PlanError: the rule makes its messages itself.
    """
    usual: Feedback = rule.wiring.feedback(rule, source, target, True)
    if rule.wiring.along_edges:
        return usual
    if usual.kind == BARE:
        raise PlanError(
            f'the rule "{rule.about.name}" makes its messages itself, so it cannot follow the forward\'s edges: use '
            f'plan="{rule.wiring.plan}".'
        )
    kept = {k: v for k, v in usual.options.items() if k == "scale" or (k == "distribution" and v != "normal")}
    return Feedback("forward", kept, usual.learning)


def _no_globs(rule: Any) -> Globs:
    return {}


def globs_in(*options: str) -> Callable[[Any], Globs]:
    """Returns what lists the globs over region names that some options are given by, where they are mappings."""

    def globs(rule: Any) -> Globs:
        given = {option: getattr(rule, option) for option in options}
        return {option: list(value) for option, value in given.items() if isinstance(value, Mapping)}

    return globs


def _never(rule: Any) -> bool:
    return False


def _itself(rule: Any) -> Any:
    return rule


def _exact(rule: Any, usual: Any) -> Any:
    return usual


def _no_turns(rule: Any) -> None:
    return None


def _no_rounds(rule: Any) -> tuple[Phase, ...]:
    return ()


def _no_tensors(rule: Any, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    return {}


def _fits(rule: Any, connections: tuple[Connection, ...], plan: str) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Wiring:
    """How a rule wants to be wired.

    Attributes:
        plan: the named plan that the rule uses unless another is asked for.
        along_edges: whether its errors run backwards over every edge of the forward graph.
        inside: whether an error passes a region's weights by the feedback in their place inside the region too, on its
            way to the region's own parameters.
        bare: whether its connections hold no matrix, since it makes its messages itself; see `BareIncoming`.
        alone: whether a region needs no signal; then it has no error neurons and no connections.
        silent: whether a region may hear from no other: it sees in the net's phases what it needs.
        draws_noise: whether it reads `local.noise`, or asks a connection to `respond` to noise.
        reads_derivative: whether it uses `phi'`; then a region whose activation has a derivative of zero is refused.
        proportional: whether the updates of a loss that is multiplied by two are twice as large, feedback's included.
            Where they are not, a program behind a loss of the user's own divides that loss's scale out of the errors,
            and multiplies the updates by it. None: as the rule's base, unless the rule overrides one of the functions;
            then it is taken not to be so.
        keeps_zero: whether errors of zero at all that a region hears from make its own error zero. None: as the rule's
            base, unless the rule overrides `signal` or `error`; then it is taken not to be so.
        averaged: whether the loss's mean is taken of what `update` returns; not where that is a step as it stands, and
            no sum over samples.
        unscaled: whether the rule's options add what is the same whatever the loss, such as a weight decay, of (rule).
        follows_weights: whether learned feedback in the shape of weights moves by these weights' own updates, of
            (rule).
        feedback: what stands on a connection that a named plan draws, of (rule, source, target, adjacent); `adjacent`
            says whether the source reads the target in the forward pass.
        edge_feedback: what stands on a connection of a plan that follows every forward edge, such as `plan="edges"`,
            of (rule, source, target).
        auxiliary: the auxiliary parameters of a region by name, of (rule, region, sources); the sources are the
            regions at the other ends of the bare connections into it.
        output: the rule of the output regions, which learn from the loss's gradient, of (rule, what they follow else).
        inner: the rule of the regions inside a block, where a plan has blocks, of (rule).
        outer: the rule of the regions between a plan's modules, or before its head, of (rule); None freezes them.
        alternate: the rule that takes turns with this one, on its own plan, and how, of (rule); None for none.
        phases: the rounds in which the whole net settles before its updates, of (rule); see `Rule.relax`. Updates are
            made of the net as the first phase left it.
        globs: by option, the globs over region names that it is given by, of (rule): each has to match a region.
        check: refuses, by a `PlanError`, what a plan drew for the rule, of (rule, connections, name of the plan).
    """

    plan: str = "direct"
    along_edges: bool = False
    inside: bool = False
    bare: bool = False
    alone: bool = False
    silent: bool = False
    draws_noise: bool = False
    reads_derivative: bool = True
    proportional: bool | None = None
    keeps_zero: bool | None = None
    averaged: bool = True
    unscaled: Callable[[Any], bool] = _never
    follows_weights: Callable[[Any], bool] = _never
    feedback: Callable[[Any, Region, Region, bool], Feedback] = usual_feedback
    edge_feedback: Callable[[Any, Region, Region], Feedback] = usual_edge_feedback
    auxiliary: Callable[[Any, Region, Sequence[Region]], Mapping[str, Auxiliary]] = _no_tensors
    output: Callable[[Any, Any], Any] = _exact
    inner: Callable[[Any], Any] = _itself
    outer: Callable[[Any], Any] = _itself
    alternate: Callable[[Any], tuple[Any, Alternation] | None] = _no_turns
    phases: Callable[[Any], tuple[Phase, ...]] = _no_rounds
    globs: Callable[[Any], Globs] = _no_globs
    check: Callable[[Any, tuple[Connection, ...], str], None] = _fits

    def but(self, **changes: Any) -> "Wiring":
        """Returns the same with some fields replaced.

        `proportional` and `keeps_zero` follow from a rule's own functions, so they are not taken over: they are what is
        given, or unsaid.
        """
        return dataclasses.replace(self, **{"proportional": None, "keeps_zero": None, **changes})


def join(wirings: Sequence[Wiring]) -> Wiring:
    """Returns the wiring of a rule with several bases: of each field, the first that says anything unusual."""
    usual = {field.name: field.default for field in dataclasses.fields(Wiring)}
    said = {name: [getattr(w, name) for w in wirings if getattr(w, name) != usual[name]] for name in usual}
    return Wiring(**{name: values[0] for name, values in said.items() if values})


def is_proportional(rule: Any) -> bool:
    """Whether all that a rule computes grows as the loss's gradient does."""
    return bool(rule.wiring.proportional and not rule.wiring.unscaled(rule))
