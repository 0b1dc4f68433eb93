"""Says in a sentence what a batch holds that a program cannot run on.

Values are looked at after torch failed, never before: on an accelerator that would cost a wait at every step. There
an index out of range is torch's device-side assertion, which no program survives. onnxruntime is asked to wait anyway,
and counts a negative index from the end: there they are looked at before.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from altprop.ir.errors import CompileError
from altprop.runtime.call import Call
from altprop.runtime.ranges import misfit, ranges
from altprop.runtime.variant import Variant


@contextlib.contextmanager
def blame_the_batch(variant: Variant, name: str, call: Call, target: Any = None) -> Iterator[None]:
    """Turns torch's complaint about an index out of range into a sentence.

    Args:
        variant: whose program runs.
        name: of the program.
        call: what it runs on.
        target: the loss's target, if the program takes it.

    Raises:
        CompileError: says which value is wrong, and what would be right.
    """
    try:
        yield
    except IndexError as error:
        raise blame(variant, name, call, target, error) from error


def blame(variant: Variant, name: str, call: Call, target: Any, error: IndexError) -> CompileError:
    """Returns torch's complaint about an index out of range as a sentence; for the arguments see `blame_the_batch`."""
    given = variant.given(call, target)
    found = ranges(variant.compiled.graph.programs[name])
    return misfit(next(filter(None, (one.wrong(given) for one in found)), str(error)))
