"""Notes what the code of a user asks of the batch's size while it is traced.

torch answers by the example, and what is traced then holds for batches of which the answer is the same. What torch or
altprop ask by themselves only chooses among ways to one result, with one exception: where a size is taken for a number,
or two sizes turn out equal, the graph may be built upon it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch
from sympy.logic.boolalg import BooleanAtom

from altprop.ir.batch_facts import BatchFacts
from altprop.ir.torch_private import ShapeEnv

_TORCH = f"{Path(torch.__file__).parent}{os.sep}"  # and not torchvision
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_ASKING = tuple(str(Path(_TORCH, *parts)) for parts in (("fx", "experimental"), ("__init__.py",), ("utils", "_sympy")))
"""Where torch turns a size into a number or a choice on behalf of who asked for it."""

_NOTED: list[BatchFacts] = []


@contextlib.contextmanager
def noting(facts: BatchFacts) -> Iterator[None]:
    """Within, answers on the batch's size that hold for some batches alone are added to `facts`.

    What traces holds the lock of `altprop.ir.alone`, so one patch serves all threads.
    """
    _NOTED.append(facts)
    plain = ShapeEnv.evaluate_expr
    if len(_NOTED) == 1:
        ShapeEnv.evaluate_expr = _noted(plain)  # type: ignore[method-assign]
    try:
        yield
    finally:
        _NOTED.remove(facts)
        if not _NOTED:
            ShapeEnv.evaluate_expr = plain  # type: ignore[method-assign]


def _noted(plain: Any) -> Any:
    def evaluate_expr(self: ShapeEnv, asked: Any, *args: Any, **kwargs: Any) -> Any:
        answer = plain(self, asked, *args, **kwargs)
        if getattr(asked, "free_symbols", None) and (_found_equal(asked, answer) or _asked_by_user(sys._getframe(1))):
            for facts in _NOTED:
                facts.add(asked, answer)
        return answer

    return evaluate_expr


def _found_equal(asked: sympy.Basic, answer: Any) -> bool:
    """Whether a size was taken for a number, or two sizes for one."""
    if not isinstance(answer, bool | BooleanAtom):
        return True
    return (isinstance(asked, sympy.Eq) and answer == sympy.true) or (
        isinstance(asked, sympy.Ne) and answer == sympy.false
    )


def _asked_by_user(frame: FrameType | None) -> bool:
    """Whether the code that turned a size into a number or a choice is neither torch's nor ours."""
    while frame is not None and frame.f_code.co_filename.startswith(_ASKING):
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_filename.startswith((_TORCH, _OURS))
