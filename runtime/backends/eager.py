"""`backend="eager"`: torch's operators, one after another."""

from altprop.ir.program import Program
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.fast_call import straight
from altprop.runtime.bindings import Bindings
from altprop.runtime.executor import Executor
from altprop.runtime.held_memory import with_held_memory


class Eager(Backend):
    """Runs programs as they stand; a step keeps its memory for the next one."""

    name = "eager"

    def prepare(self, program: Program, bindings: Bindings) -> Executor:
        """Returns a program ready to run; see `Backend.prepare`."""
        return Executor(program, bindings, with_held_memory(program) if program.is_step else straight(program.graph))
