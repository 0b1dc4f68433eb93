"""Global average pooling as a mean: torch's own restrides its result by hand, which a trace cannot differentiate."""

from collections.abc import Callable, Sequence

import torch

aten = torch.ops.aten


def adaptive_avg_pool2d(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor:
    """Average pooling to a size; to one position it is a mean."""
    return _pool(x, output_size, aten._adaptive_avg_pool2d.default)


def adaptive_avg_pool3d(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor:
    """As `adaptive_avg_pool2d`, over three dimensions."""
    return _pool(x, output_size, aten._adaptive_avg_pool3d.default)


def _pool(x: torch.Tensor, output_size: Sequence[int], kernel: Callable[..., torch.Tensor]) -> torch.Tensor:
    if all(size == 1 for size in output_size):
        return x.mean(list(range(-len(output_size), 0)), keepdim=True)
    return kernel(x, output_size)
