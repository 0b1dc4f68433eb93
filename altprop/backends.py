"""Backends: what runs the programs of a net, and how to add one.

A backend of your own is a class with a name and a `prepare`:

    class Counting(backends.Backend):
        name = "counting"

        def prepare(self, program, bindings):
            return backends.Executor(program, bindings, program.graph)

    net = altprop.compile(model, backend=Counting())
"""

from altprop.ir.backend import Wants
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.backends.table import available, get, register
from altprop.runtime.executor import Executor

__all__ = ["Backend", "Executor", "Wants", "available", "get", "register", "straight"]
