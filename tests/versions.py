"""Which torch this is, for what older and newer ones do otherwise."""

import torch

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
