"""What a rule's functions see of a region and of the connections into it.

Shapes: `N` samples first; `h`, `z`, `d` and `e` have the shape of the region's activity.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch

from altprop.ir.errors import RuleError
from altprop.ir.plan import Connection
from altprop.ir.region import Region
from altprop.rules.feedback import BARE

__all__ = ["BareIncoming", "Incoming", "Local", "bare"]


class Local(Protocol):
    """What a rule may see of one region."""

    @property
    def region(self) -> Region:
        """The region; a rule that reads its name is traced for this region alone."""

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

    def phi_change(self, d: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Returns `z - phi(h - scale * d)`: by how much the activity falls where the pre-activation does.

        A small change is the difference of two numbers that are nearly the same, and is lost in their rounding. So it
        is not computed as it is written for relu and the identity, which need no such difference, and in half
        precision, where the difference is taken in float32.

        Args:
            d: the change of the pre-activation, of its shape.
            scale: multiplies it.
        """

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The region's parameters, by name."""

    def parameter_vjp(self, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns, by parameter name, the local vector-Jacobian product of `h` with cotangent `e`."""

    @property
    def sources(self) -> dict[str, torch.Tensor]:
        """What the pre-activation is computed from beside parameters and buffers, by name."""

    @property
    def unit_dim(self) -> int | None:
        """The dimension of `h` along which units lie, where row o of each parameter moves unit o alone, else None.

        So it is where the region is one dense layer, -1, or one convolution, 1, and what is added to it. Then `h` is
        linear in the parameters too.
        """

    def run(
        self, parameters: Mapping[str, torch.Tensor] | None = None, sources: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Runs the region's own operators at other weights or inputs; returns the pre-activation that they make.

        Args:
            parameters: some of `parameters`, with other values.
            sources: some of `sources`, with other values.

        Raises:
            RuleError: the region draws random numbers in front of its activation.
        """

    def moved(
        self, parameters: Mapping[str, torch.Tensor] | None = None, sources: Mapping[str, torch.Tensor] | None = None
    ) -> "Local":
        """Returns the region at other weights or inputs, with its own `h`, `z` and products; arguments as for `run`."""

    def repeat(
        self,
        step: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
        state: Mapping[str, torch.Tensor],
        times: int,
    ) -> dict[str, torch.Tensor]:
        """Runs `step` so many times, each time on what it returned before; returns what it returned last.

        More than eight rounds are one operator of the program (`altprop.ir.repeat_operator`), which is traced once and
        computes the same. A round may read whatever the rule's function has; what no round changes is computed once.

        Args:
            step: from a state to the next one, of the same names, shapes and types. `local.draw` gives it the same
                numbers in every round.
            state: by names of the rule's.
            times: number of rounds; with 0 the state is returned as it is.

        Raises:
            RuleError: a round returns a state of another form, or draws random numbers in another way.
        """

    @property
    def noise(self) -> torch.Tensor:
        """Standard normal numbers of the activity's shape, drawn anew at every step; see `Wiring.draws_noise`.

        They come from a stream of the net's own, which is saved with it; the caller's random state is left alone.

        Raises:
            RuleError: the rule's wiring does not say that it draws noise.
        """

    def draw(self, name: str, *sizes: int) -> torch.Tensor:
        """Standard normal numbers of some shape, drawn anew at every step from the net's own stream.

        Args:
            name: asked for twice in a step, by whichever function of the rule, it gives the same numbers.
            sizes: the shape.
        """

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        """The region's state in a net that settles, as its rule's `begin` named it; empty without."""

    phase: str
    """The phase whose rounds run; empty for the update behind them, and where the net does not settle."""

    @property
    def nudge(self) -> float:
        """The nudge of the phase that runs; see `altprop.ir.rounds`."""

    def after(self, phase: str) -> "Local":
        """Returns the region as a phase left it, or as the net's forward did, `after("forward")`; for updates alone."""

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
    """One connection into a region; a bare one is a `BareIncoming`."""

    connection: Connection
    feedback: Mapping[str, torch.Tensor]

    @property
    def error(self) -> torch.Tensor:
        """The error of the connection's source; for an output, the loss's gradient in front of its last activation."""

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        """The state of the connection's source, in a net that settles; see `Local.state`."""

    @property
    def target(self) -> torch.Tensor:
        """The target in the form of the output, one-hot where it is the index of a class.

        Raises:
            RuleError: the source is no output region.
        """

    def project(self, error: torch.Tensor) -> torch.Tensor:
        """Sends an error of the source over the connection; returns a message of the activity's shape."""

    def moved(self, feedback: Mapping[str, torch.Tensor]) -> "Incoming":
        """Returns the connection at other feedback, some of `feedback` by name; its messages go by that."""

    def outer(self, factor: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns, by feedback name, the outer product of the source's error with a factor of the activity's shape.

        Where the feedback has the shape of the source's weights, this is the source's own parameter product, with the
        factor in the place of the activity that it read.
        """

    def respond(self, std: float) -> dict[str, torch.Tensor]:
        """Sends white noise through the operators of the source's weights; returns its correlations with their answers.

        They are listed by feedback name. For a dense layer that is `y^T x` with `x ~ N(0, std^2)` and its own output
        `y`, in front of a norm, summed over samples and, where the layer has several positions a sample, divided by
        their number. For rules whose wiring says `draws_noise`; the noise comes from the same
        stream as `Local.noise`.

        Raises:
            RuleError: the feedback stands for no weights.
        """


class BareIncoming(Incoming, Protocol):
    """A connection that holds no matrix: it hands over what its source made, and no message of its own."""

    from_output: bool
    """Whether the source is an output region, whose error is the loss's gradient."""

    @property
    def activity(self) -> torch.Tensor:
        """What the source made of the forward; for an output region, what the model returns."""

    def forward(self, activity: torch.Tensor) -> torch.Tensor:
        """Runs the forward once more, from another activity of the target to the source's."""


def bare(incoming: Incoming) -> BareIncoming:
    """Returns a connection that a rule drew bare.

    Raises:
        RuleError: the plan put something on it.
    """
    kind = incoming.connection.feedback.kind
    if kind != BARE:
        raise RuleError(
            f'connection {incoming.connection.name}: it carries "{kind}" feedback, but its rule makes its messages '
            'itself, from what the source made: write its kind as "bare".'
        )
    return cast(BareIncoming, incoming)
