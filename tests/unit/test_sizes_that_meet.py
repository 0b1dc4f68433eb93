"""Sizes that follow from the batch and meet a number: they are compared by the example, and no tracer is asked."""

from typing import Any

import pytest
import torch

from altprop.ir.batch_facts import BatchFacts
from altprop.ir.decisions import noting
from altprop.ir.fakes import Fakes
from altprop.ir.sizes import agree
from altprop.ir.torch_private import ConstantSource, DimDynamic, FakeTensorMode, ShapeEnv, require
from altprop.ir.tracing import trace


def fixed() -> tuple[Fakes, Any]:
    """Fakes whose batch turned out to be four, as in an export, and a shape that was written with its symbol before."""
    environment = ShapeEnv()
    symbol = environment.create_symbol(4, ConstantSource("batch"), DimDynamic.DYNAMIC)
    fakes = Fakes(FakeTensorMode(shape_env=environment), environment.create_symintnode(symbol, hint=4))
    shape = fakes.read("float64 (N + 4, 1)").shape
    require(fakes.batch == 4)
    return fakes, shape


def asked_in_a_trace(ask: Any) -> None:
    fakes, shape = fixed()

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        assert ask(shape, (8, 1))
        return [2 * x]

    with fakes.mode:
        trace(function, [torch.empty(4, 2)])


def test_a_size_that_meets_a_number_is_asked_by_no_tracer() -> None:
    asked_in_a_trace(agree)
    with pytest.raises(RuntimeError, match="not tracked"):
        asked_in_a_trace(lambda one, other: tuple(one) == other)


def test_sizes_agree_by_the_example_and_that_is_noted() -> None:
    fakes, facts = Fakes.fresh(4), BatchFacts()
    one, same, twice = (fakes.read(text).shape for text in ("float64 (N, 1)", "float32 (N, 1)", "float64 (2*N, 1)"))
    with noting(facts):
        assert agree(one, same)
        assert not agree(one, (4, 1, 1))
        assert not agree((3,), (4,))
        assert not facts
        assert agree(one, (4, 1))
        assert not agree(one, twice)
    assert facts.hold(4)
    assert not facts.hold(5)
