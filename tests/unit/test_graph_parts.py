"""The error-pathway graph holds one frozen part a level, gained in order."""

import dataclasses
from typing import Any, cast

import pytest

from altprop.ir.graph import LEVELS, ErrorGraph
from altprop.ir.graph_parts import PARTS, Cut, Fed, Linearized, Planned, Updated, Wired

CAPTURED = cast(Any, "the forward")  # no part looks into it


def complete() -> ErrorGraph:
    graph = ErrorGraph(CAPTURED)
    for part in (Cut(()), Planned(None), Wired(()), Linearized({}), Fed({}), Updated({})):
        graph = graph.gain(part)
    return graph


def test_each_level_has_one_part() -> None:
    assert tuple(part.level for part in PARTS) == LEVELS[1:]
    assert tuple(type(part) for part in complete().parts) == PARTS
    assert complete().level == LEVELS[-1]


def test_a_part_is_frozen() -> None:
    for part in complete().parts:
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.level = "captured"  # type: ignore[misc]


def test_no_level_is_left_out_and_none_comes_twice() -> None:
    cut = ErrorGraph(CAPTURED).gain(Cut(()))
    with pytest.raises(AssertionError, match='behind "cut" comes "neurons", not "wired"'):
        cut.gain(Wired(()))
    with pytest.raises(AssertionError, match='behind "cut" comes "neurons", not "cut"'):
        cut.gain(Cut(()))


def test_what_a_level_adds_is_empty_before() -> None:
    graph = ErrorGraph(CAPTURED)
    assert (graph.level, graph.regions, graph.plan, dict(graph.feedback)) == ("captured", (), None, {})


def test_replace_finds_the_part_of_a_field() -> None:
    graph = complete().replace(preamble=("relu",), programs={"step": cast(Any, 1)})
    assert graph.preamble == ("relu",)
    assert graph.programs["step"] == 1
    assert graph.level == LEVELS[-1]
    assert complete().preamble == ()


def test_replace_knows_no_field_of_a_level_that_is_not_reached() -> None:
    with pytest.raises(TypeError, match='a graph at level "captured" has no updates, no feedback'):
        ErrorGraph(CAPTURED).replace(updates={}, feedback={})
