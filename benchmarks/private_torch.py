"""The private names of torch that measurements need, each with its reason; nothing else here names one.

The package has its own such file, `ir/torch_private.py`; what measures it from outside imports nothing of it.
"""

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode", "identity", "pytree"]

REASONS = {
    "TorchDispatchMode": "sees each operator at the moment at which it makes a tensor",
    "identity": "tells storages apart: two Python objects may stand for one",
    "pytree": "finds the tensors among arguments and results of any form",
}
"""Why each is needed."""


def identity(storage: torch.UntypedStorage) -> int:
    """Returns a number that a storage has alone while it lives."""
    return storage._cdata
