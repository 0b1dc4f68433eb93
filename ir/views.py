"""What data classes show of themselves: text, pictures, files.

Such a function reads the class, so the class cannot import it: files would import in a circle. The class's method asks
for it by a name of this table instead. What a function needs (pydantic, matplotlib) is loaded when it is asked for.
"""

import importlib
from collections.abc import Mapping
from typing import Any

VIEWS: Mapping[str, str] = {
    "graph as text": "altprop.ir.graph_text:format_graph",
    "graph as networkx": "altprop.ir.drawing.as_networkx:to_networkx",
    "graph as dot": "altprop.ir.drawing.dot:to_dot",
    "graph as a picture": "altprop.ir.drawing.picture_files:draw_beside",
    "plan as text": "altprop.ir.plan_text:format_plan",
    "plan to a file": "altprop.ir.plan_file:save_plan",
    "plan from a file": "altprop.ir.plan_file:load_plan",
    "schema of plans": "altprop.ir.plan_schema:json_schema",
    "program as text": "altprop.ir.program_text:format_program",
    "schedule as text": "altprop.ir.schedule_text:format_schedule",
    "schedule from text": "altprop.ir.schedule_text:parse_schedule",
    "timeline as a picture": "altprop.ir.drawing.gantt:draw_gantt",
}
"""Modules and functions, by what they show."""


def show(name: str, *args: Any) -> Any:
    """Calls the function of a name in `VIEWS`."""
    module, function = VIEWS[name].split(":")
    return getattr(importlib.import_module(module), function)(*args)
