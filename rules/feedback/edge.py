"""Feedback backwards over a forward edge: through the source's operators, with something in the weights' place.

| kind | in the place of a weight W | source |
|---|---|---|
| transpose | W itself: this is backpropagation | |
| identity | the edge has none: what other kinds become there | |
| forward | an own tensor of its shape, fixed or learned | Lillicrap 2016; Akrout 2019 |
| sign | `sign(W)`, times the width | Xiao 2018 (usf) |
| sign_batch | `sign(W) |M|`, with M drawn anew for every batch | Sanfiz and Akrout 2021 (brsf) |
| sign_fixed | `sign(W) |M|`, with M drawn once | Sanfiz and Akrout 2021 (frsf) |
| pinv | `W (W'W + lambda I)^-1`, so that `W d` is nearest to the error | Zenkai, arXiv 2311.09663 |

Only matrices and filters are replaced.
"""

import torch

from altprop.ir.errors import PlanError
from altprop.ir.starts import RANDOM, WEIGHTS
from altprop.rules.feedback.kind import Options, width


class EdgeKind:
    """Base of the kinds over forward edges; as it stands, the exact transpose.

    Attributes of the class:
        name: its name in plans.
        stores: whether a connection has tensors of its own.
        learnable: whether a rule may move them.
        starts: how its tensors may begin; see `altprop.ir.starts`.
        draws: whether it takes standard normal numbers of the weights' shapes, drawn anew at every step.
        distribution: of what is drawn, unless an option says otherwise.
    """

    name: str = "transpose"
    options: tuple[str, ...] = ("distribution", "scale")
    stores: bool = False
    starts: tuple[str, ...] = ()
    learnable: bool = False
    draws: bool = False
    distribution: str = "xavier_normal"

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """Returns what stands in a weight's place, or None for the weight itself.

        Args:
            weight: the weight.
            own: the connection's tensor for it, where the kind stores any.
            noise: of the weight's shape, where the kind draws any.
            options: of the connection.
        """
        return None

    def magnitude(self, weight: torch.Tensor, options: Options) -> float:
        """Returns the width of the distribution for a tensor of the weight's shape, times the scale."""
        distribution = str(options.get("distribution", self.distribution))
        return float(options.get("scale", 1.0)) * width(distribution, tuple(weight.shape))


class Identity(EdgeKind):
    """Nothing: the edge has no weights (a shortcut that is added), so the error goes back as it is."""

    name = "identity"
    options = ()


class Forward(EdgeKind):
    """An own tensor."""

    name = "forward"
    options = ("distribution", "scale", "start", "start_noise")
    starts = (RANDOM, WEIGHTS)
    stores = True
    learnable = True
    distribution = "kaiming_uniform"

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """The tensor."""
        return own


class SignOfWeight(EdgeKind):
    """The weight's sign."""

    name = "sign"

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """`sign(W)` times the width."""
        return torch.sign(weight) * self.magnitude(weight, options)


class SignBatch(EdgeKind):
    """The weight's sign, with magnitudes that are drawn for every batch."""

    name = "sign_batch"
    draws = True

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """`sign(W) |M|`."""
        assert noise is not None
        return torch.sign(weight) * noise.abs() * self.magnitude(weight, options)


class SignFixed(EdgeKind):
    """The weight's sign, with magnitudes that are drawn once."""

    name = "sign_fixed"
    stores = True

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """`sign(W) |M|`."""
        assert own is not None
        return torch.sign(weight) * own.abs()


class PseudoInverse(EdgeKind):
    """The least-squares inverse of a dense layer's weight: the message is the shortest change that makes the error.

    `d = e W (W'W + lambda I)^-1` for W of (outputs, inputs); the option `lam`, 0 if not given, keeps it short.
    """

    name = "pinv"
    options = ("lam",)

    def substitute(
        self, weight: torch.Tensor, own: torch.Tensor | None, noise: torch.Tensor | None, options: Options
    ) -> torch.Tensor | None:
        """`W (W'W + lambda I)^-1`, by the smaller of `W'W` and `WW'`.

        Raises:
            PlanError: the weight is a filter.
        """
        if weight.dim() != 2:
            raise PlanError(
                f'"pinv" feedback stands for matrices, and here is a weight of the shape {tuple(weight.shape)}: use '
                '"transpose", or "forward".'
            )
        lam = float(options.get("lam", 0.0))
        outputs, inputs = weight.shape
        if outputs < inputs:
            return torch.linalg.solve(weight @ weight.t() + lam * _identity(weight, outputs), weight)
        return torch.linalg.solve(weight.t() @ weight + lam * _identity(weight, inputs), weight.t()).t()


def _identity(like: torch.Tensor, size: int) -> torch.Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
