"""Optimizers that run inside the program."""

from altprop.ir.optimizers import SGD, Adam, AdamW, Muon, Optimizer, TracedParameter

__all__ = ["SGD", "Adam", "AdamW", "Muon", "Optimizer", "TracedParameter"]
