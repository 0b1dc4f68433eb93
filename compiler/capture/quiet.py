"""Keeps torch's own words to itself while altprop traces: what goes wrong is said once, in a sentence of ours."""

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from altprop.ir.alone import compiles_here
from altprop.ir.torch_private import LOUD_LOGGERS


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences torch's deprecation warnings about itself, and the traces that its loggers print before they raise."""
    loggers = [logging.getLogger(name) for name in LOUD_LOGGERS]
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


class _Held(io.TextIOBase):
    """A stream that keeps what the thread that compiles writes, and passes on what others do."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.kept = stream, list[str]()

    def write(self, text: str) -> int:
        if not compiles_here():
            return int(self.stream.write(text) or 0)
        self.kept.append(text)
        return len(text)


@contextlib.contextmanager
def graphs_unprinted() -> Iterator[None]:
    """Holds back what is printed on the standard error, where torch prints a graph that it cannot trace.

    What a forward printed there of its own appears where the trace succeeds.
    """
    held = _Held(sys.stderr)
    with contextlib.redirect_stderr(held):
        yield
    for text in held.kept:
        held.stream.write(text)


@contextlib.contextmanager
def held_output() -> Iterator[Callable[[], str]]:
    """Holds back what a library prints on the standard error, and loggers' lines.

    Only libraries that know no other way need it: what other threads print meanwhile is held back too. A library in C++
    prints past Python, or into whatever Python has in the place of its standard error, such as a notebook's cell.

    Yields:
        What returns the text so far.
    """
    disabled = logging.root.manager.disable
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as file, os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8") as stream:
        os.dup2(file.fileno(), 2)
        logging.disable(logging.CRITICAL)

        def printed() -> str:
            stream.flush()
            file.seek(0)
            return file.read().decode("utf-8", "replace")

        try:
            with contextlib.redirect_stderr(stream):
                yield printed
        finally:
            stream.flush()
            os.dup2(own, 2)
            os.close(own)
            logging.disable(disabled)
