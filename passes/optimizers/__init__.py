"""Optimizers inside the program, one file each; `EMITTERS` is the table, by the optimizer's name."""

from collections.abc import Mapping

from altprop.passes.optimizers.adam import emit_adam
from altprop.passes.optimizers.emitter import OTHER, Emit, Emitter
from altprop.passes.optimizers.muon import emit_muon
from altprop.passes.optimizers.sgd import emit_sgd

EMITTERS: Mapping[str, Emit] = {"sgd": emit_sgd, "adam": emit_adam, "adamw": emit_adam, "muon": emit_muon}

__all__ = ["EMITTERS", "OTHER", "Emit", "Emitter"]
