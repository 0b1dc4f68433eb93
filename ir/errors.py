"""The family of errors that altprop raises on bad input.

A message says what is wrong, where (module path, source line, file and key) and what to do instead.
"""


class CompileError(Exception):
    """A model, a rule or an option cannot be compiled."""


class CaptureError(CompileError):
    """`torch.export` could not capture the model."""


class PlanError(CompileError):
    """A wiring plan is malformed or does not fit the network."""


class RuleError(CompileError):
    """A learning rule is unknown, has bad options, or does not fit the region it is given to."""


class ScheduleError(CompileError):
    """A schedule cannot be made or is not valid."""


class ProgramError(CompileError):
    """A program has no text, or a text is none of a program."""


class ExportError(CompileError):
    """A program cannot be written in the format that was asked for."""


class VerifyError(CompileError):
    """A pass produced, or was given, a graph that breaks a law of its level."""


class LearnerError(CompileError):
    """A learner, a region that teaches itself, does not keep what its interface promises, or cannot be saved."""
