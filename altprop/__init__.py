"""altprop: a compiler that rewrites PyTorch models into local-learning programs."""

import altprop.checkout  # noqa: F401 - before all else, since all else comes through its links
from altprop import backends, learners, nn, optim, rules
from altprop.api import compile
from altprop.auditing import Audit, audit
from altprop.compiler.capture.captured import Captured, capture
from altprop.compiler.schedule.cost_model import CostModel
from altprop.examining import examine
from altprop.from_hub import from_pretrained
from altprop.ir.errors import (
    CaptureError,
    CompileError,
    ExportError,
    LearnerError,
    PlanError,
    ProgramError,
    RuleError,
    ScheduleError,
    VerifyError,
)
from altprop.ir.graph import ErrorGraph
from altprop.ir.machine import Machine
from altprop.ir.plan import Connection, Feedback, RegionPlan, WiringPlan
from altprop.ir.watch import watchers
from altprop.logs import LogWatcher, show_logs_of_environment
from altprop.runtime.net import LocalNet
from altprop.schedules import Schedule
from altprop.terminal import TerminalWatcher, console
from altprop.version import VERSION

__version__ = VERSION

# Who compiles for long wants to know where it is.
watchers.add(LogWatcher())
watchers.add(TerminalWatcher(console))
show_logs_of_environment()

__all__ = [
    "Audit",
    "CaptureError",
    "Captured",
    "CompileError",
    "Connection",
    "CostModel",
    "ErrorGraph",
    "ExportError",
    "Feedback",
    "LearnerError",
    "LocalNet",
    "Machine",
    "PlanError",
    "ProgramError",
    "RegionPlan",
    "RuleError",
    "Schedule",
    "ScheduleError",
    "VerifyError",
    "WiringPlan",
    "audit",
    "backends",
    "capture",
    "compile",
    "examine",
    "from_pretrained",
    "learners",
    "nn",
    "optim",
    "rules",
]
