"""The backward of an activation that is flat on one side."""

import torch


def threshold_backward(grad: torch.Tensor, x: torch.Tensor, threshold: float) -> torch.Tensor:
    """In the place of `aten.threshold_backward`: a product, which takes engines less time than a choice."""
    return grad * (x > threshold).to(grad.dtype)
