"""What these tests share."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import altprop


def small_net(**options: Any) -> altprop.LocalNet:
    """A compiled net of two layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return altprop.compile(model, **{"rule": "dfa", "example_inputs": (torch.randn(8, 6),), **options})


def flip(path: Path, place: float = 0.5) -> None:
    """Turns one bit over."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    path.write_bytes(content)


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
