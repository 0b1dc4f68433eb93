"""Recursive error pathways: the three wirings of Figure 1, and how regions are grouped."""

import dataclasses
from typing import Any

import pytest
from networks import region, residual, row, wired

from altprop import PlanError
from altprop.rules import get
from altprop.rules.plans import Network, make_plan


def nine(units: dict[str, int] | None = None) -> Network:
    """Nine layers in a row, of which 2, 5 and 8 are bottlenecks."""
    widths = {"2": 3, "5": 3, "8": 3} if units is None else units
    resized = [dataclasses.replace(r, shape=("N", widths.get(r.name, 5))) for r in row(9).regions]
    return Network.of(resized)


def heard(network: Network, plan: str, rule: str = "reclra") -> dict[str, list[str]]:
    """For each source the targets that it reaches, the highest first."""
    found: dict[str, list[str]] = {}
    for target, sources in wired(network, plan, rule).items():
        for source in sources:
            found.setdefault(source, []).insert(0, target)
    return found


FIGURE_1: list[tuple[int, dict[str, list[str]]]] = [
    (1, {"9": ["8", "7", "6", "5", "4", "3", "2", "1"]}),
    (2, {"9": ["8", "5", "2"], "8": ["7", "6"], "5": ["4", "3"], "2": ["1"]}),
    (3, {"9": ["8", "5", "2"], "8": ["7"], "7": ["6"], "5": ["4"], "4": ["3"], "2": ["1"]}),
]


@pytest.mark.parametrize(("depth", "expected"), FIGURE_1)
@pytest.mark.parametrize("how", ["by='bottleneck'", "groups=[['1', '2'], ['3', '4', '5'], ['6', '7', '8']]"])
def test_figure_1(how: str, depth: int, expected: dict[str, list[str]]) -> None:
    assert heard(nine(), f"recursive(depth={depth}, {how})") == expected


def test_recursion_by_gap() -> None:
    """Layers above the last anchor are the output's own group; as deep as a group it is Algorithm 1."""
    assert heard(row(9), "recursive(depth=2, gap=3)") == {"9": ["8", "7", "6", "3"], "6": ["5", "4"], "3": ["2", "1"]}
    assert wired(row(9), "recursive(depth=3, gap=3)") == wired(row(9), "blocks(gap=3)")
    assert wired(row(9), "recursive(depth=1, gap=3)") == wired(row(9), "direct")
    assert wired(row(9), "recursive(depth=99, gap=4)") == wired(row(9), "blocks(gap=4)")


def test_recursion_by_block() -> None:
    assert wired(residual(), "recursive(depth=2, by='block')") == wired(residual(), "blocks")
    assert wired(residual(), "recursive") == wired(residual(), "blocks")


def test_a_source_must_lie_behind() -> None:
    """Two branches in one group: what the anchor does not depend on hears from the output instead."""
    network = Network.of(
        [region("a"), region("b"), region("c", ("a",)), region("d", ("b", "c")), region("out", ("d",), output=True)]
    )
    assert heard(network, "recursive(depth=2, groups=[['a', 'b', 'c']])") == {"out": ["d", "c", "b"], "c": ["a"]}


def test_inner_rules_of_a_recursion() -> None:
    rules = {}
    for inner in ("reclra", "backprop", "hebbian"):
        rule = get(f"reclra(inner='{inner}')")
        plan = make_plan(row(7), lambda _, rule=rule: rule, "recursive(depth=2, gap=3)")
        rules[inner] = {r.name: r.rule.partition("(")[0] for r in plan.regions}
        plan.check([str(n) for n in range(1, 8)], ["7"])
        links = {c.name for c in plan.connections}
        assert ("3->2" in links) == (inner != "hebbian")
        assert ("3->1" in links) == (inner == "reclra")
        assert [r.error_neurons for r in plan.regions] == [r.rule != "hebbian" for r in plan.regions]
    assert rules["backprop"] == {**dict.fromkeys("36", "reclra"), **dict.fromkeys("12457", "bp")}
    assert rules["hebbian"] == {**dict.fromkeys("36", "reclra"), **dict.fromkeys("1245", "hebbian"), "7": "bp"}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("recursive(depth=0)", "the depth is one level or more"),
        ("recursive(by='size')", 'choose "block" or "bottleneck"'),
        ("recursive(by='bottleneck')", "no region is narrower than its neighbours"),
        ("recursive(by='block')", "the model has no repeated submodules"),
        ("recursive(gap=2, by='block')", "give one of by=, gap= and groups="),
        ("recursive(gap=0)", "a gap is one region or more"),
        ("recursive(groups=[['1', '77']])", 'there is no hidden region "77"'),
        ("recursive(groups=[['1', '2'], ['2']])", 'region "2" stands in two groups'),
        ("recursive(width=3)", "there are chain, direct, blocks and blocks"),
    ],
)
def test_wrong_recursions_are_refused(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        wired(row(9), plan)


def test_modules() -> None:
    """Inside a module its last region is heard; the last one hears exactly from what reads it."""
    rule = get("modular")
    plan = make_plan(row(7), lambda _: rule, "modules(gap=2)")
    found: dict[str, Any] = {c.name: c.feedback.kind for c in plan.connections}
    assert found == {"2->1": "dense", "3->2": "transpose", "4->3": "dense", "5->4": "transpose", "6->5": "dense",
                     "7->6": "transpose"}  # fmt: skip
    assert [r.rule for r in plan.regions] == ["modular", "bp", "modular", "bp", "modular", "bp", "bp"]


@pytest.mark.parametrize("features", ["bp", "frozen"])
def test_head(features: str) -> None:
    images = [dataclasses.replace(r, shape=("N", 5, 2, 2)) for r in row(5).regions[:2]]
    rule = get(f"dfa_head(features='{features}')")
    plan = make_plan(Network.of([*images, *row(5).regions[2:]]), lambda _: rule, None)
    exact = {"2->1": "transpose", "3->2": "transpose"} if features == "bp" else {}
    assert {c.name: c.feedback.kind for c in plan.connections} == {"5->3": "dense", "5->4": "dense", **exact}
    assert [r.rule for r in plan.regions] == [features, features, str(rule), str(rule), "bp"]
