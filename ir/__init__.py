"""Data that the compiler and the runtime agree on: regions, graphs, plans, programs, errors.

What graphs, plans, programs and schedules show of themselves is registered first; see `altprop.ir.views`.
"""

from altprop.ir import drawing as _drawing
from altprop.ir import graph_text as _graph_text
from altprop.ir import plan_file as _plan_file
from altprop.ir import program_text as _program_text
from altprop.ir import schedule_text as _schedule_text

__all__: list[str] = []
_VIEWS = (_drawing, _graph_text, _plan_file, _program_text, _schedule_text)
