"""Optimizers that run inside the program."""

from altprop.ir.optim import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
