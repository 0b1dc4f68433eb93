"""Holds the garbage collector back while a model compiles.

Almost all that a stage makes stays until its end, so that the collector would look through it many times in vain. What
a stage leaves is collected between the stages instead.
"""

import contextlib
import contextvars
import gc
from collections.abc import Iterator

_HELD: contextvars.ContextVar[bool] = contextvars.ContextVar("held", default=False)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Holds the collector back; one that is off already is left alone."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    token = _HELD.set(True)
    try:
        yield
    finally:
        _HELD.reset(token)
        gc.enable()


def collect_young() -> None:
    """Collects what was made since the collector was held back; does nothing where it was not."""
    if _HELD.get():
        gc.collect(1)
