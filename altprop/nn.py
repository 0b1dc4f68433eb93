"""Modules that local learning makes possible, and what puts them into a model."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from altprop.ir.errors import CompileError
from altprop.learners.base import Learner

__all__ = ["Argmax", "Heaviside", "InputNoise", "Learner", "Perturbation", "Round", "Sign", "replace_convolution"]


class Sign(nn.Module):
    """The sign activation, `z = sign(h)`; its derivative is zero, so only rules without `phi'` train it (rec-LRA)."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Returns -1, 0 or 1, by element."""
        return torch.sign(h)


class Heaviside(nn.Module):
    """The threshold unit, `z = 1` where `h > 0`, else 0; trained by rules without `phi'`, as `Sign` is."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Returns 0 or 1, by element."""
        return (h > 0).to(h.dtype)


class Round(nn.Module):
    """Rounds to the nearest whole number; trained by rules without `phi'`, as `Sign` is."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Returns a whole number, by element; the even one of two that are as near."""
        return torch.round(h)


class Argmax(nn.Module):
    """The largest unit wins: 1 for it, 0 for all others along one dimension; trained by rules without `phi'`.

    Units that are equally large all win.
    """

    def __init__(self, dim: int = -1) -> None:
        """Takes the dimension of the units that compete."""
        super().__init__()
        self.dim = dim

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Returns 0 or 1, by element."""
        return (h >= h.amax(self.dim, keepdim=True)).to(h.dtype)


class InputNoise(nn.Module):
    """Adds Gaussian noise to its input in training, as rec-LRA's authors do before the first layer."""

    def __init__(self, std: float = 0.1) -> None:
        """Takes the standard deviation of the noise."""
        super().__init__()
        self.std = std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x + n` in training, `x` otherwise."""
        return x + self.std * torch.randn_like(x) if self.training else x


class Perturbation(nn.Module):
    """A perturbative layer, or pseudo-convolution (Juefei-Xu et al. 2018; rec-LRA paper).

        z[c] = sum_m w[c, m] relu(x[m mod inputs] + n[m]) + b[c]

    with fixed noise maps `n` and learned numbers `w`: no filter passes over the image.

    Attributes:
        weight: (outputs, masks).
        bias: (outputs,), or None.
        noise: the maps, (masks, *space); fixed.
    """

    noise: torch.Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        space: Sequence[int],
        masks: int = 64,
        std: float = 0.1,
        bias: bool = True,
        seed: int = 0,
    ) -> None:
        """Makes the layer.

        Args:
            inputs: channels of its input.
            outputs: channels of its output.
            space: height and width of its input; any number of dimensions.
            masks: number of noise maps; channels of the input are taken in turn.
            std: standard deviation of the noise.
            bias: whether outputs have one.
            seed: of the noise; the global random state is left alone.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inputs = inputs
        self.register_buffer("noise", std * torch.randn(masks, *space, generator=generator))
        self.weight = nn.Parameter(torch.empty(outputs, masks))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        with torch.no_grad():
            self.weight.copy_(torch.randn(outputs, masks, generator=generator) * masks**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, inputs, *space) to (N, outputs, *space)."""
        turns = -(-self.noise.shape[0] // self.inputs)
        repeated = torch.cat([x] * turns, 1)[:, : self.noise.shape[0]]
        return linear_combination(torch.relu(repeated + self.noise), self.weight, self.bias)


def linear_combination(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Mixes channels at every place: (N, masks, *space) and (outputs, masks) to (N, outputs, *space)."""
    mixed = functional.linear(x.movedim(1, -1), weight, bias)
    return mixed.movedim(-1, 1)


class _Pooled(nn.Module):
    """A perturbative layer in the place of a convolution with a stride, or without padding: its size is averaged."""

    def __init__(self, layer: Perturbation, size: Sequence[int]) -> None:
        super().__init__()
        self.layer = layer
        self.size = tuple(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layer's result at the convolution's size."""
        pool: dict[int, Any] = {
            3: functional.adaptive_avg_pool1d,
            4: functional.adaptive_avg_pool2d,
            5: functional.adaptive_avg_pool3d,
        }
        pooled: torch.Tensor = pool[x.dim()](self.layer(x), self.size)
        return pooled


def replace_convolution(
    model: nn.Module, example_inputs: Sequence[Any], masks: int = 64, std: float = 0.1, seed: int = 0
) -> nn.Module:
    """Returns a copy of a model with perturbative layers in the place of its convolutions.

    Args:
        model: the model; it is not altered.
        example_inputs: inputs of its forward, from which the sizes of images are found.
        masks: noise maps of each layer; the rec-LRA paper takes 64.
        std: standard deviation of the noise.
        seed: of the noise, mixed with the place of the layer.

    Raises:
        CompileError: a convolution runs never, or on images of several sizes.
    """
    made = copy.deepcopy(model)
    found = {name: m for name, m in made.named_modules() if isinstance(m, _CONVOLUTIONS)}
    sizes = _sizes_of(made, found, example_inputs)
    for index, (name, module) in enumerate(found.items()):
        before, after = sizes[name]
        layer = Perturbation(
            module.in_channels, module.out_channels, before, masks, std, module.bias is not None, seed + index
        ).to(module.weight)
        parent, _, leaf = name.rpartition(".")
        whole = layer if before == after else _Pooled(layer, after)
        setattr(made.get_submodule(parent), leaf, whole.train(module.training))
    return made


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _sizes_of(
    model: nn.Module, found: Mapping[str, nn.Module], example_inputs: Sequence[Any]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Space before and behind each convolution, from one run in evaluation mode."""
    seen: dict[str, set[Any]] = {name: set() for name in found}

    def note(name: str) -> Any:
        return lambda module, inputs, output: seen[name].add((tuple(inputs[0].shape[2:]), tuple(output.shape[2:])))

    hooks = [module.register_forward_hook(note(name)) for name, module in found.items()]
    modes = {module: module.training for module in model.modules()}
    with torch.no_grad():
        model.eval()(*example_inputs)
    for module, mode in modes.items():
        module.training = mode
    for hook in hooks:
        hook.remove()
    wrong = next((name for name, sizes in seen.items() if len(sizes) != 1), None)
    if wrong is not None:
        problem = "does not run on the example inputs" if not seen[wrong] else "runs on images of several sizes"
        raise CompileError(f"convolution {wrong} {problem}: a perturbative layer has noise maps of one size.")
    return {name: next(iter(sizes)) for name, sizes in seen.items()}
