"""Walks over graphs, on a graph of letters."""

import pytest
import torch
from torch import fx

from altprop.ir.walks import ancestors, closure, comes_from, descendants, leads_to, positions

READS = {"a": "", "b": "a", "c": "a", "d": "bc", "e": "c", "f": "de", "g": "", "h": "g"}


@pytest.fixture(scope="module")
def nodes() -> dict[str, fx.Node]:
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for name, reads in READS.items():
        made[name] = graph.call_function(torch.add, tuple(made[letter] for letter in reads), name=name)
    return made


def names(found: object) -> str:
    assert isinstance(found, set)
    return "".join(sorted(node.name for node in found))


def test_ancestors_and_descendants(nodes: dict[str, fx.Node]) -> None:
    assert names(ancestors([nodes["d"]])) == "abcd"
    assert names(ancestors([nodes["d"], nodes["h"]])) == "abcdgh"
    assert names(descendants([nodes["c"]])) == "cdef"
    assert names(ancestors([])) == names(descendants([])) == ""


def test_a_walk_enters_only_where_it_may(nodes: dict[str, fx.Node]) -> None:
    assert names(ancestors([nodes["f"]], lambda node: node.name != "c")) == "abdef"
    assert names(descendants([nodes["a"]], lambda node: node.name not in "bc")) == "a"
    assert names(ancestors([nodes["f"]], lambda node: node.name != "f")) == ""


def test_a_closure_stands_in_order(nodes: dict[str, fx.Node]) -> None:
    assert [node.name for node in closure([nodes["e"], nodes["d"]])] == ["a", "b", "c", "d", "e"]
    assert closure([]) == []


def test_ways_within_some_nodes(nodes: dict[str, fx.Node]) -> None:
    some = [nodes[name] for name in "abdfg"]
    assert names(leads_to(some, [nodes["f"], nodes["e"]])) == "abdf"
    assert names(comes_from(some, [nodes["c"], nodes["b"]])) == "bdf"


def test_positions(nodes: dict[str, fx.Node]) -> None:
    assert positions([nodes["c"], nodes["a"]]) == {nodes["c"]: 0, nodes["a"]: 1}
