"""The four-function interface of a learning rule.

A rule is written in plain tensor code, for one region at a time. The compiler traces it; nothing it does runs as
Python in training. To write one, subclass `Rule` as a frozen dataclass, give it a `name`, and override what
differs:

* `signal`: what message `d` reaches the region over its incoming connections?
* `error`: what do its error neurons hold?
* `update`: how do its parameters move?
* `feedback_update`: how does the feedback on a connection into it move?

Regions that are alike but for their names share one trace of a rule. One that reads the name of a region or of a
connection is traced for that region alone; keys of parameters are told apart by all but the numbers in them.

A rule that needs tensors of its own for that, a local classifier or a learned inverse, declares them in `auxiliary` and
moves them by `auxiliary_update`.

Shapes: `N` samples first; `h`, `z`, `d` and `e` have the shape of the region's activity. Errors are per sample, of
the *sum* of the loss over samples; the compiler applies the loss's reduction to what `update` returns.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol

import torch

from altprop.ir.alternate import Alternation
from altprop.ir.errors import PlanError, RuleError
from altprop.ir.json_document import shown
from altprop.ir.plan import Connection, Feedback
from altprop.ir.region import Region
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.feedback import BARE, choose_direct_kind
from altprop.rules.literals import LiteralError, parse_call
from altprop.rules.recipe import Recipe

RULES: dict[str, type["Rule"]] = {}

_FUNCTIONS = frozenset(("signal", "error", "update", "feedback_update", "auxiliary_update", "finish"))


class Local(Protocol):
    """What a rule may see of one region."""

    region: Region

    @property
    def h(self) -> torch.Tensor:
        """The pre-activation."""

    @property
    def z(self) -> torch.Tensor:
        """The activity."""

    def phi(self, h: torch.Tensor) -> torch.Tensor:
        """Applies the region's activation to any pre-activation of the same shape."""

    def phi_vjp(self, d: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """Returns `phi'(h) * d`: an error at the activity, taken to the pre-activation.

        Args:
            d: the error.
            h: a pre-activation other than the region's own.
        """

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The region's parameters, by name."""

    def parameter_vjp(self, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns, by parameter name, the local vector-Jacobian product of `h` with cotangent `e`."""

    @property
    def noise(self) -> torch.Tensor:
        """Standard normal numbers of the activity's shape, drawn anew at every step; see `Rule.draws_noise`.

        They come from a stream of the net's own, which is saved with it; the caller's random state is left alone.
        """

    @property
    def auxiliary(self) -> Mapping[str, torch.Tensor]:
        """The region's auxiliary parameters, by the names that the rule gave them."""

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The network's loss of some other prediction, summed over samples and positions.

        Args:
            prediction: of the output's form.
            target: of the same shape, one-hot where it is a class; see `Incoming.target`.
        """


class Incoming(Protocol):
    """One connection into a region.

    A *bare* connection also has `activity`, what the source made of the forward (for an output region, what the model
    returns), and `forward(z)`, which runs the forward once more from another activity of the target to the source's.
    """

    connection: Connection
    feedback: Mapping[str, torch.Tensor]

    @property
    def error(self) -> torch.Tensor:
        """The error of the connection's source; for an output, the loss's gradient in front of its last activation."""

    @property
    def target(self) -> torch.Tensor:
        """The target in the form of the output, one-hot where it is the index of a class.

        Raises:
            RuleError: the source is no output region.
        """

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error of the source over the connection; returns a message of the activity's shape."""

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns, by feedback name, the outer product of the source's error with a factor of the activity's shape.

        Where the feedback has the shape of the source's weights, this is the source's own parameter product, with the
        factor in the place of the activity that it read.
        """

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """Sends white noise through the operators of the source's weights; returns its correlations with their answers.

        They are listed by feedback name. For a dense layer that is `y^T x` with `x ~ N(0, std^2)` and its own output
        `y`, in front of a norm, summed over samples and, where the layer has several positions a sample, divided by
        their number. For rules with `draws_noise`; the noise comes from the same
        stream as `Local.noise`.

        Raises:
            RuleError: the feedback stands for no weights.
        """


@dataclasses.dataclass(frozen=True)
class Rule:
    """Base of all learning rules; as it stands it moves parameters along `phi'(h) * d`.

    Attributes of the class:
        name: the rule's name in text, such as "reclra(beta=0.1)".
        summary: one line on what the rule does.
        source: paper and equations.
        plan: the named plan that the rule uses unless another is asked for.
        along_edges: whether its errors run backwards over every edge of the forward graph.
        needs_derivative: whether it uses `phi'`; then a region with a sign activation is refused.
        learns_alone: whether a region needs no signal; then it has no error neurons and no connections.
        listed: whether `available` lists it.
        draws_noise: whether it reads `local.noise`, or asks a connection to `respond` to noise.
        sends: what the rule takes from the source of a connection, for prints; "{}" stands for the error.
        proportional: whether all that it computes grows as the loss's gradient does; a rule that overrides one of the
            functions is taken not to be so unless it says it is. See `is_proportional`.
        equation: what `error` computes, for prints; options stand in braces, as in "phi(h - {beta} d)".
        recipe: settings under which the rule trains, where the user sets nothing else.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    plan: ClassVar[str] = "direct"
    along_edges: ClassVar[bool] = False
    needs_derivative: ClassVar[bool] = True
    sends: ClassVar[str] = "{}"
    learns_alone: ClassVar[bool] = False
    listed: ClassVar[bool] = True
    draws_noise: ClassVar[bool] = False
    proportional: ClassVar[bool] = True
    equation: ClassVar[str] = "e = phi'(h) * d"
    recipe: ClassVar[Recipe] = Recipe()

    def __init_subclass__(cls) -> None:
        if "error" in cls.__dict__ and "equation" not in cls.__dict__:
            cls.equation = "e = error(h, d)"
        if "proportional" not in cls.__dict__ and not _FUNCTIONS.isdisjoint(cls.__dict__):
            cls.proportional = False
        if cls.__dict__.get("name"):
            RULES[cls.name] = cls

    def feedback(self, source: Region, target: Region, adjacent: bool) -> Feedback:
        """Says what stands on a connection that a named plan draws.

        Args:
            source: region whose error is sent.
            target: region that receives it.
            adjacent: whether the source reads the target in the forward pass.
        """
        return Feedback(choose_direct_kind(source, target))

    def edge_feedback(self, source: Region, target: Region) -> Feedback:
        """Says what stands on a connection of a plan that follows every forward edge, such as `plan="edges"`.

        An own tensor in the place of each of the source's weights, learned if the rule's usual feedback is. Scale and
        distribution are those of the usual feedback, but what would be "normal" is drawn as torch draws weights. A rule
        that follows the edges anyway has there what it has everywhere.

        Args:
            source: region whose error is sent; it reads the target.
            target: region that receives it.

        Raises:
            PlanError: the rule makes its messages itself.
        """
        usual = self.feedback(source, target, True)
        if self.along_edges:
            return usual
        if usual.kind == BARE:
            raise PlanError(
                f'the rule "{self.name}" makes its messages itself, so it cannot follow the forward\'s edges: use '
                f'plan="{self.plan}".'
            )
        kept = {k: v for k, v in usual.options.items() if k == "scale" or (k == "distribution" and v != "normal")}
        return Feedback("forward", kept, usual.learning)

    def auxiliary(self, region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
        """Says which auxiliary parameters a region has, by name; none if not overridden.

        Args:
            region: a region that follows this rule.
            sources: the regions at the other ends of the bare connections into it.
        """
        return {}

    def region_globs(self) -> Mapping[str, Iterable[str]]:
        """Returns, by option, the globs over region names that it is given by: each has to match a region."""
        return {}

    def alternate(self) -> "tuple[Rule, Alternation] | None":
        """Returns the rule that takes turns with this one, on its own plan, and how; None for none."""
        return None

    def outer_rule(self) -> "Rule | None":
        """Returns the rule of the regions between a plan's modules, or before its head; None freezes them."""
        return self

    def inner_rule(self) -> "Rule":
        """Returns the rule of the regions inside a block, where a plan has blocks."""
        return self

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """Returns the message `d` that reaches the region: the sum over its connections."""
        return add_up([connection.project(connection.error) for connection in incoming])

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """Returns what the error neurons hold, `e = phi'(h) * d`: the cotangent that enters at `h`."""
        return local.phi_vjp(d)

    def update(self, local: Local, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the update direction of each parameter of the region, summed over samples."""
        return local.parameter_vjp(e)

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns the update direction of learned feedback on one connection, by name; empty if fixed."""
        return {}

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Returns the update direction of learned auxiliary parameters, summed over samples; empty if none learns."""
        return {}

    def follows_weights(self) -> bool:
        """Whether learned feedback in the shape of weights moves by these weights' own updates; for prints."""
        return False

    def finish(self, direction: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Has the last word on an update direction, of a parameter of the region or of feedback on a connection to it.

        Args:
            direction: what `update` or `feedback_update` returned, behind the loss's reduction.
            parameter: its present value.
        """
        return direction

    def is_proportional(self) -> bool:
        """Whether the updates of a loss that is multiplied by two are twice as large, feedback's included.

        Where they are not, a program behind a loss of the user's own divides that loss's scale out of the errors, and
        multiplies the updates by it.
        """
        return self.proportional

    def output_rule(self, usual: "Rule") -> "Rule":
        """Returns the rule of the output regions, which learn from the loss's gradient.

        Args:
            usual: what they follow unless a rule asks for more.
        """
        return usual

    def error_equation(self) -> str:
        """Returns `equation` with the options' values in it, such as "e = z - phi(h - 0.1 d)"."""
        return self.equation.format(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    def __str__(self) -> str:
        changed = [f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        if not changed:
            return self.name
        return f"{self.name}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"


def add_up(messages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the sum of one message or more."""
    total = messages[0]
    for message in messages[1:]:
        total = total + message
    return total


def parse_rule(text: str) -> Rule:
    """Builds the rule that a text such as `"reclra(beta=0.1)"` describes.

    Raises:
        RuleError: unknown rule, unknown option, or not of the form `name(option=value, ...)`.
    """
    try:
        name, options = parse_call(text)
    except LiteralError as error:
        raise RuleError(f"{shown(text)} does not read as a rule; write name(option=value, ...): {error}.") from error
    return _build(name, options)


def _build(name: str, options: dict[str, object]) -> Rule:
    if name not in RULES:
        raise RuleError(f'there is no rule "{name[:60]}"; there are {", ".join(sorted(RULES))}.')
    known = {field.name for field in dataclasses.fields(RULES[name])}
    unknown = sorted(set(options) - known)
    if unknown:
        has = ", ".join(sorted(known)) or "none"
        raise RuleError(f'the rule "{name}" has no option "{unknown[0]}"; its options are: {has}.')
    try:
        return RULES[name](**options)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={shown(value)}" for key, value in options.items())
        raise RuleError(f'the rule "{name}" does not take {given}: {error}.') from error
