"""Types and sizes of tensors in files."""

from typing import Any

import numpy as np
import torch

from altprop.ir.errors import ExportError

TO_FLOAT = (
    'convert the model, such as model.float(), or where it is the optimizer that rounds, give it precision="float32"'
)
NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


def numpy_type(dtype: torch.dtype) -> Any:
    """Returns the NumPy type of a torch type.

    Raises:
        ExportError: NumPy has none.
    """
    if dtype not in NUMPY:
        raise ExportError(f"{dtype} cannot be exported: {TO_FLOAT}.")
    return NUMPY[dtype]


def is_symbolic(size: Any) -> bool:
    """Whether a size is known at run time alone."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number
