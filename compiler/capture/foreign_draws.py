"""Refuses random numbers that are drawn outside torch: a program would have for good what was drawn at capture."""

import contextlib
import pickle
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from altprop.compiler.capture.globals_read import functions_behind, functions_of, methods_of_own, values_read
from altprop.ir.errors import CaptureError

PYTHONS, NUMPYS = "Python's random", "numpy.random"


class ForeignDraws:
    """Watches the generators of Python and NumPy that some functions can reach.

    Other threads draw from those of the process as well, so that a changed state alone tells nothing of the functions:
    they must name the generator, or no other thread must run.
    """

    def __init__(self, who: str, functions: Iterable[types.FunctionType], modules: Iterable[nn.Module] = ()) -> None:
        """Takes who is blamed, the functions that run, and the modules whose generators they may draw from."""
        self._who = who
        self._generators = dict(_of_the_process())
        self._named: set[str] = set()
        for function in functions:
            for name, value in values_read(function):
                self._add(name, value)
        for module in modules:
            for name, value in vars(module).items():
                self._add(name, value)

    def _add(self, name: str, value: Any) -> None:
        """Adds a generator that a function names, itself or by one of its methods."""
        owner = value if _is_generator(value) else getattr(value, "__self__", None)
        if not _is_generator(owner):
            return
        known = next((own for own, generator in self._generators.items() if generator is owner), name)
        self._generators[known] = owner
        self._named.add(known)

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Within, nothing may be drawn.

        Raises:
            CaptureError: something was; names the generator.
        """
        before = {name: pickle.dumps(generator) for name, generator in self._generators.items()}
        yield
        for name, generator in self._generators.items():
            certain = name in self._named or threading.active_count() == 1
            if certain and pickle.dumps(generator) != before[name]:
                raise CaptureError(
                    f"{self._who} draws from {name}: a program would have for good what was drawn while it was made. "
                    "Draw with torch instead, such as by torch.rand or torch.randperm, or give the numbers as an input."
                )


def of_forward(model: nn.Module) -> ForeignDraws:
    """Watches what the forward of a model can reach."""
    return ForeignDraws("the forward", functions_behind(model), model.modules())


def of_loss_and_rules(loss: Any, rules: Iterable[Any]) -> ForeignDraws:
    """Watches what a loss, and rules of a user's own, can reach; their functions are traced once, as a forward is."""
    methods = [method for rule in rules for method in methods_of_own(rule)]
    functions = [own for part in (loss, *methods) for own in functions_of(part)]
    return ForeignDraws("the loss, or a rule,", functions)


def _of_the_process() -> Iterator[tuple[str, Any]]:
    yield PYTHONS, random.random.__self__  # type: ignore[attr-defined]  # stubs call the bound method a function
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        yield NUMPYS, numpy.rand.__self__


def _is_generator(value: Any) -> bool:
    numpy = sys.modules.get("numpy.random")
    kinds = (random.Random,) if numpy is None else (random.Random, numpy.RandomState, numpy.Generator)
    return isinstance(value, kinds)
