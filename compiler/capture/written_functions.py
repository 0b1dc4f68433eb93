"""Functions of torch that no trace gets through, or that no graph can say, written with others that do the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from altprop.compiler.capture.covariance import corrcoef, cov


def _whole_linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> torch.Tensor:
    """Takes the batch at once: the options cut it into chunks, by a count that is a number, to save memory."""
    return torch.nn.functional.linear_cross_entropy(*args, **kwargs)


_WRITTEN: dict[Any, Callable[..., torch.Tensor]] = {
    **dict.fromkeys((torch.cov, torch.Tensor.cov), cov),
    **dict.fromkeys((torch.corrcoef, torch.Tensor.corrcoef), corrcoef),
    getattr(torch.nn.functional, "linear_cross_entropy", None): _whole_linear_cross_entropy,
}


class WrittenFunctions(TorchFunctionMode):
    """Calls what stands for a function; every other function passes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function, or what stands for it."""
        kwargs = kwargs or {}
        if function in _WRITTEN and args[0].dim() <= 2:
            kwargs = {name: value for name, value in kwargs.items() if value is not None}
            return _WRITTEN[function](*args, **kwargs)
        return function(*args, **kwargs)
