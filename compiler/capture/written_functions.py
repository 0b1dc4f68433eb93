"""Functions of torch that no trace gets through, or that no graph can say, written with others that do the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from altprop.compiler.capture.covariance import corrcoef, cov
from altprop.ir.torch_private import batch_norm_that_writes


def _whole_linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> torch.Tensor:
    """Takes the batch at once: the options cut it into chunks, by a count that is a number, to save memory."""
    return torch.nn.functional.linear_cross_entropy(*args, **kwargs)


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, deviation: Any, training: bool, *rest: Any) -> Any:
    """Takes the form that says what it writes where there is something to write, and else the one that never does."""
    chosen = batch_norm_that_writes if training else torch.native_batch_norm
    return chosen(x, weight, bias, mean, deviation, training, *rest)


_WRITTEN: dict[Any, Callable[..., torch.Tensor]] = {
    **dict.fromkeys((torch.cov, torch.Tensor.cov), cov),
    **dict.fromkeys((torch.corrcoef, torch.Tensor.corrcoef), corrcoef),
    **dict.fromkeys((torch.native_batch_norm, batch_norm_that_writes), _batch_norm),
    getattr(torch.nn.functional, "linear_cross_entropy", None): _whole_linear_cross_entropy,
}


class WrittenFunctions(TorchFunctionMode):
    """Calls what stands for a function; every other function passes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function, or what stands for it."""
        return _WRITTEN.get(function, function)(*args, **(kwargs or {}))
