"""Optimizers that run inside the program."""

from altprop.ir.optim import SGD, Adam, AdamW, Muon, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Muon", "Optimizer"]
