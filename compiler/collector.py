"""Holds the garbage collector back while a model compiles.

Almost all that a stage makes stays until its end, so that the collector would look through it many times in vain. What
stages leave is collected between them instead, once it is much, and goes back to the system.
"""

import contextlib
import contextvars
import ctypes
import functools
import gc
from collections.abc import Callable, Iterator

ENOUGH = 50_000
"""Objects that make collecting worth its time, some milliseconds: stages of a small net leave fewer all together."""
FEW = 2_000
"""Objects that may count as frozen although nobody froze any: Python 3.12's immortal ones do, some hundreds."""
_HELD: contextvars.ContextVar[int | None] = contextvars.ContextVar("held", default=None)
"""The generation up to which is collected between stages, while the collector is held back."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Holds the collector back; one that is off already is left alone."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    frozen = gc.get_freeze_count() < FEW  # who froze something has to thaw it
    if frozen:
        gc.freeze()  # what was there before is not looked through between the stages
    token = _HELD.set(2 if frozen else 1)
    try:
        yield
    finally:
        _HELD.reset(token)
        if frozen:
            gc.unfreeze()
        gc.enable()


def collect_young() -> None:
    """Collects what was made since the collector was held back, and gives it back; does nothing where it was not."""
    if (generation := _HELD.get()) is not None and gc.get_count()[0] >= ENOUGH:
        gc.collect(generation)
        _trimmer()()


@functools.cache
def _trimmer() -> Callable[[], object]:
    """What gives freed memory back to the system: glibc keeps it otherwise, a page here and a page there."""
    try:
        return functools.partial(ctypes.CDLL(None).malloc_trim, 0)
    except (OSError, TypeError, AttributeError):  # Windows, another C library
        return lambda: None
