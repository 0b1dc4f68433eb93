"""The runtime: executes programs, holds parameters, feedback and optimizer state."""

from altprop.runtime.net import LocalNet

__all__ = ["LocalNet"]
