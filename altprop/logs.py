"""What altprop says in logs: a line a stage, and the passes' own sentences.

All of it goes to loggers below "altprop", one a stage: "altprop.capture", "altprop.derive_updates". The variable
`ALTPROP_LOGS` writes some of them to standard error, by the names of stages or by words of them:

    ALTPROP_LOGS=capture,cut,derive python train.py
    ALTPROP_LOGS=all python train.py
"""

import logging
import os
import re
from collections.abc import Sequence

from altprop.ir.watch import Watcher

VARIABLE = "ALTPROP_LOGS"
ALL = "all"

STAGES = (
    "capture",
    "cut_regions",
    "plan",
    "insert_error_neurons",
    "connect_skip_errors",
    "linearize_regions",
    "insert_feedback",
    "derive_updates",
    "flatten",
    "add_optimizer",
    "cleanup",
    "program",
    "draw_feedback",
    "cache",
)
"""What there is to hear of, in the order in which it comes."""

log = logging.getLogger("altprop")


def logger_of(stage: str) -> logging.Logger:
    """Returns the logger of a stage; "program step" logs as "program", "flatten:alternate" as "flatten"."""
    return logging.getLogger(f"altprop.{re.split('[ :]', stage)[0]}")


class LogWatcher(Watcher):
    """Logs a line a stage."""

    def left(self, stage: str, seconds: float) -> None:
        """Logs how long it took."""
        logger_of(stage).info("%s took %.2f s", stage, seconds)


class _Wanted(logging.Filter):
    """Lets through what some stages say."""

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        self._stages = stages

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.removeprefix("altprop.") in self._stages or record.name == "altprop"


def show_logs(wanted: str) -> logging.Handler | None:
    """Writes the logs of some stages to standard error.

    Args:
        wanted: names of stages or words of them, with commas between, or "all".

    Returns:
        What writes them, or None if nothing is wanted.
    """
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        return None
    stages = [stage for stage in STAGES if any(matches(stage, word) for word in words)]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(_Wanted(stages))
    log.addHandler(handler)
    log.setLevel(min(log.level or logging.INFO, logging.INFO))
    unknown = [word for word in words if not any(matches(stage, word) for stage in STAGES)]
    if unknown:
        log.warning("%s=%s: no stage is called so; there are %s, and all.", VARIABLE, unknown[0], ", ".join(STAGES))
    return handler


def matches(stage: str, word: str) -> bool:
    """Whether a word means a stage: "all", its name, how it begins, or a word in it."""
    return word == ALL or stage.startswith(word) or word in stage.split("_")


def show_logs_of_environment() -> None:
    """Does what the variable says."""
    show_logs(os.environ.get(VARIABLE, ""))
