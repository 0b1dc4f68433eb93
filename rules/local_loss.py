"""Local losses: every region learns from classifiers of its own (Nokland and Eidnes 2019; Belilovsky et al. 2019).

    p_i = pool(z_i) A_i + a_i                    local classifier
    S_i = similarity of the samples in z_i C_i   adjusted cosines: features are centred in each
                                                 sample
    L_i = (1 - beta) loss(p_i, t) + beta / N sum_mn (S_i - S_t)_mn^2
    d_i = dL_i / dz_i,    e_i = phi_i'(h_i) * d_i
    A_i, a_i and C_i descend along L_i

with the target `t` (one-hot, where it is the index of a class), `S_t` its similarities, and the network's own loss.
In images, pool is an average over a grid, `C_i` is a 3 x 3 convolution, and each channel counts by its standard
deviation over space; in sequences `C_i` is one matrix at every position, and each feature counts by its deviation
over positions. Nothing but the target reaches a region, so it learns while the forward pass is on its way. `beta=0`
is greedy training with auxiliary classifiers alone. Their form is `head`:

    "pooled"   p_i = pool(z_i) A_i + a_i
    "linear"   p_i = z_i A_i                A_i learns
        (Mono-Forward: Gong et al. 2025, arXiv 2501.09238)
    "fixed"    p_i = z_i A_i                A_i stays random
        (SLL: Yin and Shao 2025, arXiv 2505.05181)

With `goodness="squares"` there is no classifier. A batch holds samples that are real, with target 1 (or class 1 of
two), and samples that are not, with target 0, and each region learns to tell them by its own activity
(forward-forward: Hinton 2022, arXiv 2212.13345), of all samples in one forward:

    g_i = mean over units of z_i^2,    L_i = softplus(s (threshold - g_i)),
        s = 1 for a real sample, else -1
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch.nn import functional

from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary, need_fixed_units
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.feedback import shares_positions
from altprop.rules.number_checks import check_numbers
from altprop.rules.recipe import Recipe
from altprop.rules.wiring import Wiring

HEADS = ("pooled", "linear", "fixed")
GOODNESS = ("", "squares")
_EPSILON = 1e-8


def _auxiliary(rule: "LocalLoss", region: Region, sources: Sequence[Region]) -> Mapping[str, Auxiliary]:
    """The local classifier, and the projection whose similarities are matched.

    Raises:
        RuleError: the output is neither one vector a sample, nor one at every position of the activity.
    """
    output = _output_of(region, sources)
    if rule.goodness:
        return _none_for_goodness(region, output)
    if rule.head != "pooled":
        shape = (int(output.error_shape[-1]), _read_units(region, output))
        fixed = rule.head == "fixed"
        return {"classifier.weight": Auxiliary(shape, "normal" if fixed else "kaiming_uniform", learning=not fixed)}
    classes = int(output.error_shape[-1])
    inputs = int(region.shape[-1]) if len(region.shape) < 4 else _pooled_units(region, rule.features)
    found: dict[str, Auxiliary] = {}
    if rule.beta < 1:
        found["classifier.weight"] = Auxiliary((classes, inputs))
        found["classifier.bias"] = Auxiliary((classes,), scale=0.0)
    if rule.beta > 0:
        found["similarity.weight"] = Auxiliary(_projection_shape(region))
    return found


@dataclasses.dataclass(frozen=True)
class LocalLoss(Rule):
    """Greedy, decoupled learning from local losses.

    Attributes:
        beta: share of the similarity loss; the rest is the prediction loss.
        features: images are pooled until the local classifier reads at most so many values.
        head: the form of the local classifier, "pooled", "linear" or "fixed"; the latter two have `beta=0`.
        goodness: "squares" for forward-forward's, in the classifier's place; "" for none.
        threshold: of the goodness.
    """

    about: ClassVar[About] = About(
        name="local_loss",
        summary="local losses: auxiliary classifiers and matched similarities, greedy and decoupled",
        source="Nokland and Eidnes 2019; Belilovsky, Eickenberg and Oyallon 2019; Hinton 2022",
        sends="the target, not {}",
        recipe=Recipe(optimizer="adam", lr=1e-3),
    )
    wiring: ClassVar[Wiring] = Wiring(bare=True, auxiliary=_auxiliary)

    beta: float = 0.99
    features: int = 2048
    head: str = "pooled"
    goodness: str = ""
    threshold: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise RuleError(f"local_loss: beta={self.beta}; it is a share, from 0 to 1.")
        check_numbers(self, "features", least=1)
        if self.head not in HEADS or self.goodness not in GOODNESS:
            raise RuleError(
                f'local_loss: head="{self.head}", goodness="{self.goodness}"; a head is one of {", ".join(HEADS)}, '
                'goodness is "squares" or "".'
            )
        if self.beta and self.head != "pooled" and not self.goodness:
            raise RuleError(
                f'local_loss: head="{self.head}" is a prediction loss alone; write local_loss(beta=0, '
                f'head="{self.head}").'
            )

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The local loss's gradient at the activity."""
        return self._gradients(local, incoming)[0]

    def auxiliary_update(
        self, local: Local, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The local loss's gradients at classifier and projection; of what learns alone."""
        return {} if self.goodness or self.head == "fixed" else self._gradients(local, incoming)[1]

    def _gradients(self, local: Local, incoming: Sequence[Incoming]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        target = incoming[0].target

        def loss(z: torch.Tensor, auxiliary: dict[str, torch.Tensor]) -> torch.Tensor:
            return self._loss(local, z, auxiliary, target)

        gradients: tuple[torch.Tensor, dict[str, torch.Tensor]]
        gradients = torch.func.grad(loss, argnums=(0, 1))(local.z, dict(local.auxiliary))
        return gradients

    def _loss(
        self, local: Local, z: torch.Tensor, auxiliary: Mapping[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        if self.goodness:
            return _goodness_loss(z, target, self.threshold)
        if self.head != "pooled":
            read = z.reshape(-1, auxiliary["classifier.weight"].shape[1])
            prediction = read @ auxiliary["classifier.weight"].t()
            return local.loss(prediction, target.reshape(prediction.shape))
        total = z.new_zeros(())
        if self.beta < 1:
            read = _pool(z, self.features, target)
            prediction = torch.addmm(auxiliary["classifier.bias"], read, auxiliary["classifier.weight"].t())
            total = total + (1 - self.beta) * local.loss(prediction, target.reshape(prediction.shape))
        if self.beta > 0:
            difference = _similarity(_project(z, auxiliary["similarity.weight"])) - _similarity(target)
            total = total + self.beta / z.shape[0] * difference.square().sum()
        return total


def _output_of(region: Region, sources: Sequence[Region]) -> Region:
    """The output region whose target reaches a region."""
    output = next((source for source in sources if source.is_output), None)
    if output is None:
        raise RuleError(
            f'local_loss: region "{region.name}" hears from no output region, so no target reaches it; use '
            'plan="direct".'
        )
    need_fixed_units(f'local_loss: region "{region.name}"', output)
    shape = region.shape
    if shape[0] != output.error_shape[0] or not (
        len(output.error_shape) == 2 or (len(shape) == 3 and shares_positions(output.error_shape, shape))
    ):
        raise RuleError(
            f'local_loss: region "{region.name}" has an activity of shape {shape} and the output one of '
            f"{output.error_shape}; a local classifier needs one target a sample, or one at every position that both "
            "share. Use dfa."
        )
    return output


def _none_for_goodness(region: Region, output: Region) -> Mapping[str, Auxiliary]:
    """Goodness has no parameters.

    Raises:
        RuleError: the target does not say which samples are real.
    """
    if len(output.error_shape) != 2 or output.error_shape[1] not in (1, 2):
        raise RuleError(
            f'local_loss: goodness tells real samples from others, and "{output.name}" has an output of '
            f"{output.error_shape}: have the model end in one number or two classes, and give it a batch of both kinds."
        )
    return {}


def _goodness_loss(z: torch.Tensor, target: torch.Tensor, threshold: float) -> torch.Tensor:
    goodness = z.flatten(1).square().mean(1)
    sign = 2 * target[:, -1].to(z.dtype) - 1
    return functional.softplus(sign * (threshold - goodness)).sum()


def _read_units(region: Region, output: Region) -> int:
    """What a linear classifier reads: the whole activity, or that of a position where the output has positions."""
    sizes = region.shape[2:] if len(output.error_shape) > 2 else region.shape[1:]
    return math.prod(int(size) for size in sizes)


def _projection_shape(region: Region) -> tuple[int, ...]:
    spatial = len(region.shape) - 2 if len(region.shape) > 3 else 0
    width = int(region.shape[1 if spatial else -1])
    return (width, width, *[3] * spatial)


def _kernel(shape: Sequence[int | str], features: int) -> int:
    """The smallest pooling window after which an image holds no more than so many values."""
    window = 1
    while _units(shape, window) > features and window < min(int(size) for size in shape[2:]):
        window += 1
    return window


def _units(shape: Sequence[int | str], window: int) -> int:
    units = int(shape[1])
    for size in shape[2:]:
        units *= int(size) // window
    return units


def _pooled_units(region: Region, features: int) -> int:
    return _units(region.shape, _kernel(region.shape, features))


def _pool(z: torch.Tensor, features: int, target: torch.Tensor) -> torch.Tensor:
    """What the local classifier reads, as rows: one a sample, or one a position where the target has positions."""
    if z.dim() == 3:
        return z.mean(1) if target.dim() == 2 else z.reshape(-1, z.shape[-1])
    if z.dim() < 4:
        return z
    window = _kernel([0, *(int(size) for size in z.shape[1:])], features)
    pool = functional.avg_pool2d if z.dim() == 4 else functional.avg_pool3d
    return pool(z, window).flatten(1)


def _project(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One vector a sample, of which similarities are taken."""
    if z.dim() < 4:
        made = torch.mm(z.reshape(-1, z.shape[-1]), weight.t())
        return made if z.dim() == 2 else _spread(made.view(z.shape), 1)
    convolve = functional.conv2d if z.dim() == 4 else functional.conv3d
    return _spread(convolve(z, weight, padding=1).flatten(2), 2)


def _spread(features: torch.Tensor, dim: int) -> torch.Tensor:
    """The standard deviation over positions; where there is one position alone, what is there."""
    return features.std(dim) if features.shape[dim] > 1 else features.squeeze(dim)


def _similarity(features: torch.Tensor) -> torch.Tensor:
    """Adjusted cosines between samples: (N, N)."""
    flat = features.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    normal = centred / (_EPSILON + torch.linalg.vector_norm(centred, dim=1, keepdim=True))
    return normal @ normal.t()
