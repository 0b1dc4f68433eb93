"""Keeps torch's own words to itself while altprop traces: what goes wrong is said once, in a sentence of ours."""

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences torch's deprecation warnings about itself, and the traces that its loggers print before they raise."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Holds the garbage collector back; `collect_young` takes its place between the stages.

    Almost all that a stage makes stays until its end, so that the collector would look through it many times in vain.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_young() -> None:
    """Collects what was made since the collector was held back, where it is."""
    if not gc.isenabled():
        gc.collect(1)
