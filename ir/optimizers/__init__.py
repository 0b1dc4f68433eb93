"""Optimizers that run inside the program, one file each."""

from altprop.ir.optimizers.adam import Adam, AdamW
from altprop.ir.optimizers.base import OUTPUT, Optimizer
from altprop.ir.optimizers.muon import Muon
from altprop.ir.optimizers.sgd import SGD
from altprop.ir.optimizers.traced_parameter import FEEDBACK, OTHER, TracedParameter

__all__ = ["FEEDBACK", "OTHER", "OUTPUT", "SGD", "Adam", "AdamW", "Muon", "Optimizer", "TracedParameter"]
