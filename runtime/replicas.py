"""Several processes with one net each: what `net.backward` does not average, and the call that does.

DistributedDataParallel averages gradients that autograd brings. `net.backward` runs without autograd, so nothing
tells it when they are there.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from altprop.ir.errors import CompileError


class Replicas:
    """The processes that train copies of one net.

    Attributes:
        told: whether the user was told that nothing is averaged, or showed that they know.
    """

    def __init__(self) -> None:
        self.told = False

    def warn_once(self, call: str) -> None:
        """Warns where there are several processes and nothing of theirs was averaged so far."""
        if self.told or not _started() or dist.get_world_size() == 1:
            return
        self.told = True
        warnings.warn(
            f"{call} fills .grad in this process alone, also under DistributedDataParallel: call "
            "net.average_gradients() before the optimizer's step, or train by loss.backward(), which "
            "DistributedDataParallel averages.",
            stacklevel=3,
        )

    def average(self, parameters: Sequence[nn.Parameter], group: Any) -> None:
        """Averages the gradients of parameters over a group.

        Raises:
            CompileError: torch.distributed has not been started.
        """
        if not _started():
            raise CompileError(
                "net.average_gradients() averages over processes, and torch.distributed has not been started: call "
                "torch.distributed.init_process_group() first, or leave it out."
            )
        self.told = True
        size = dist.get_world_size(group)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # One message for each type and device, as flat as DistributedDataParallel's.
        for key in dict.fromkeys((gradient.dtype, gradient.device) for gradient in gradients):
            alike = [gradient for gradient in gradients if (gradient.dtype, gradient.device) == key]
            flat = torch.cat([gradient.reshape(-1) for gradient in alike])
            dist.all_reduce(flat, group=group)
            flat /= size
            for gradient, mean in zip(alike, flat.split([one.numel() for one in alike]), strict=True):
                gradient.copy_(mean.view_as(gradient))


def _started() -> bool:
    return dist.is_available() and dist.is_initialized()
