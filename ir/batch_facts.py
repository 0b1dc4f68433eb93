"""What the code of a user asked of the size of the batch while it was traced.

A graph serves batches of all sizes. But a `forward`, a loss or a rule is Python, and may read the size as a number:
`if len(x) < 6`, or `total / len(y)`. What it was answered is a *fact*. The graph is right for the batches of which all
its facts hold, and a net compiles anew for others, as torch.compile does.
"""

import functools
from collections.abc import Iterable
from typing import Any

import sympy

_SIZES = (*range(2, 67), 96, 100, 127, 128, 129, 192, 255, 256, 257, 384, 500, 512, 1000, 1024, 2048, 4096, 2**16)


class BatchFacts:
    """Questions on the batch's size, as expressions of a symbol that stands for it, with their answers."""

    def __init__(self, others: Iterable["BatchFacts"] = ()) -> None:
        """Starts with what others hold."""
        self._answers: dict[sympy.Basic, Any] = {}
        for other in others:
            self._answers.update(other._answers)

    def __bool__(self) -> bool:
        return bool(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def __str__(self) -> str:
        return ", ".join(f"{asked} is {answer}" for asked, answer in self._answers.items())

    def refuse(self, why: str, error: type[Exception]) -> None:
        """Refuses where anything was asked.

        Args:
            why: why batches of all sizes must do.
            error: what to raise.
        """
        if self:
            raise error(
                f"{why}, and the model, the loss or a rule asks for the size of the batch as a number ({self}), so "
                "this would be right for some batches alone: compute with x.shape[0] as it is, without len(x), "
                "int(x.shape[0]) or a choice by it."
            )

    def add(self, asked: sympy.Basic, answer: Any) -> None:
        """Notes an answer, unless it is the same for batches of all sizes."""
        if _tells_batches_apart(asked, answer):
            self._answers[asked] = answer

    def learn(self, others: "BatchFacts") -> None:
        """Takes over what others hold."""
        self._answers.update(others._answers)

    @property
    def bind_to_one(self) -> bool:
        """Whether they hold for batches of one size alone, of the usual sizes."""
        return sum(map(self.hold, _SIZES)) <= 1

    def hold(self, batch: int) -> bool:
        """Whether each question has the same answer for a batch of this size."""
        return not self._answers or all(_is(asked, answer, batch) for asked, answer in self._answers.items())


@functools.lru_cache(maxsize=1024)
def _tells_batches_apart(asked: sympy.Basic, answer: Any) -> bool:
    return not all(_is(asked, answer, size) for size in _SIZES)


def _is(asked: sympy.Basic, answer: Any, batch: int) -> bool:
    """Whether a question has an answer for a batch; one that cannot be told counts as another answer."""
    told = asked.xreplace(dict.fromkeys(asked.free_symbols, sympy.Integer(batch)))
    return bool(told == answer)
