"""Runs the passes of one compilation, now or when a program is first asked for, and keeps what they made."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from altprop.compiler.capture.foreign_draws import ForeignDraws
from altprop.compiler.capture.quiet import quiet
from altprop.compiler.collector import collect_young, uncollected
from altprop.compiler.pass_order import ORDER
from altprop.compiler.quick_fakes import quick_fakes
from altprop.ir.alone import alone
from altprop.ir.autocast import casting, casts
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.decisions import noting
from altprop.ir.errors import CompileError, VerifyError
from altprop.ir.forms import Forms
from altprop.ir.graph import ErrorGraph
from altprop.ir.timings import Timings
from altprop.ir.without_code import without_code
from altprop.passes.base import Pass, PassResult

T = TypeVar("T")


def _ambient(runner: "PassRunner") -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Returns what surrounds work on a compilation that comes later: the state of torch as it is now."""
    wanted, dtype = casts(), torch.get_default_dtype()

    @contextlib.contextmanager
    def ambient() -> Iterator[None]:
        with alone(), quiet(), uncollected(), quick_fakes(), without_code(), casting(wanted), runner.noting():
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                yield
            finally:
                torch.set_default_dtype(before)

    return ambient


@contextlib.contextmanager
def blaming_ourselves(stage: str) -> Iterator[None]:
    """Says of a graph that breaks a law that it is no fault of the user's, in a sentence without the graph.

    Raises:
        CompileError: what a pass made is not right.
    """
    try:
        yield
    except VerifyError as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise CompileError(
            f"altprop has a fault: {stage} made a graph that breaks a law of its level ({first[:200].rstrip(':')}). "
            "Your model is not to blame. Please report it with the model; another rule, plan or regions= may get "
            "around it."
        ) from error


class PassRunner:
    """Runs passes and keeps every graph.

    Attributes:
        history: the graphs so far, by the pass that made them.
        timings: what took how long.
        facts: what was asked of the size of the batch.
        forms: of the captured graph.
    """

    def __init__(self, draws: ForeignDraws) -> None:
        """Takes what refuses random numbers from outside torch."""
        self._draws = draws
        self.history: dict[str, ErrorGraph] = {}
        self.timings = Timings()
        self.facts = BatchFacts()
        self.forms = Forms()

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Notes what is asked of the batch's size, and lets nothing be drawn outside torch.

        What holds for some batches alone is not kept for other nets.
        """
        known = len(self.facts)
        try:
            with noting(self.facts), self._draws.refused():
                yield
        finally:
            if len(self.facts) > known:
                self.forms.clear()

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Does some work as a stage of the compilation."""
        with self.timings.stage(name), blaming_ourselves(name):
            made = work()
            collect_young()
        return made

    def building(self) -> Callable[[str], contextlib.AbstractContextManager[None]]:
        """Returns what surrounds the making of a program, which comes later: the state of torch as it is now."""
        ambient = _ambient(self)

        @contextlib.contextmanager
        def making(name: str) -> Iterator[None]:
            with ambient(), self.timings.stage(f"program {name}"), blaming_ourselves(f"program {name}"):
                yield

        return making

    def later(self, work: Callable[[], T]) -> Callable[[], T]:
        """Returns what does some work later, in the state of torch as it is now."""
        ambient = _ambient(self)

        def do() -> T:
            with ambient():
                return work()

        return do

    def run(self, one: Pass, graph: ErrorGraph, suffix: str = "") -> ErrorGraph:
        """Runs a pass; its graph goes into the history under its name and a suffix."""
        assert type(one) in ORDER, f"{one.name} has no place in the order of the passes"
        result: PassResult = self.time(one.name + suffix, lambda: one(graph))
        self.history[one.name + suffix] = result.graph
        self.timings.did[one.name + suffix] = result.did
        return result.graph
