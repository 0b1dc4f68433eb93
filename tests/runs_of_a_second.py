"""What the tests of runs share."""

from typing import Any

from altprop.training import (
    RunConfig,
    make_config,
)

# Dropout draws from torch's random state in every step; batch norm has buffers; both must come back.
NOISY_NET = """
import torch

class Noisy(torch.nn.Sequential):
    def __init__(self, width=24):
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.BatchNorm1d(width), torch.nn.Tanh(),
            torch.nn.Dropout(0.2), torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 10))
"""

TREES = """
import torch
import altprop

class Trees(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Tanh(),
            altprop.learners.Forest(16, 8, keep=3, depth=3, window=80, features=0.5), torch.nn.Linear(8, 10))
"""


def config_of(**flags: Any) -> RunConfig:
    """A run of a second: four steps an epoch."""
    small = {"subset": 250, "epochs": 4, "threads": 1, "tensorboard": False, "hidden": [16, 16]}
    if "model" in flags:
        del small["hidden"]
    return make_config(flags={**small, **flags})
