"""Writes the first values of a program's states beside it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from altprop.ir.errors import ExportError

INITIAL = (".npz", ".safetensors")


def save_state(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes tensors by name.

    Raises:
        ExportError: the suffix is unknown, or safetensors is not installed.
    """
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})  # type: ignore[arg-type]
        return
    if path.suffix != ".safetensors":
        raise ExportError(f'initial="{path.suffix}": there are {", ".join(INITIAL)}, and "" for none.')
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ExportError('".safetensors" needs the package safetensors: pip install "altprop[onnx]".') from error
    save_file(dict(state), str(path))
