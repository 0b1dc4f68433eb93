"""Processes that are killed without warning, at moments that are counted in calls of functions and not by the clock."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch


def count_calls(action: Callable[[], Any]) -> int:
    """How many Python functions an action calls."""
    made = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return made


def die_after(calls: int) -> None:
    """From now on so many Python functions are called in this thread; then the process is killed."""
    left = calls

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        left -= event == "call"
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def in_child(action: Callable[[], Any]) -> int:
    """Runs an action in a fork of this process, on one thread; returns 0, 1 if it raised, or minus the signal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a child has no others
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of a fork beside threads
        child = os.fork()
    if not child:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        torch.set_num_threads(threads)
