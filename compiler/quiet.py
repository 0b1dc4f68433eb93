"""Keeps torch's own words to itself while altprop traces: what goes wrong is said once, in a sentence of ours."""

import contextlib
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
