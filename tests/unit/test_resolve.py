"""Rules of regions: found once, from globs and from the texts of a plan."""

import dataclasses
from typing import ClassVar

import pytest
from networks import region, row

import altprop
from altprop.rules import About, Rule, get
from altprop.rules.plans import make_plan
from altprop.rules.registry import rules_of
from altprop.rules.resolve import resolve, rule_by_glob


@dataclasses.dataclass(frozen=True)
class Nameless(Rule):
    """A rule that no text finds."""

    about: ClassVar[About] = About()


def plan(*rules: str) -> altprop.WiringPlan:
    return altprop.WiringPlan(tuple(altprop.RegionPlan(str(n), rule) for n, rule in enumerate(rules)), ())


def test_a_plan_has_one_rule_a_text_and_none_where_it_is_frozen() -> None:
    given = Nameless()
    found = resolve(plan("dfa(scale=2.0)", "frozen", str(given), "dfa(scale=2.0)"), [given, None])
    assert found == {"0": get("dfa(scale=2.0)"), "1": None, "2": given, "3": found["0"]}
    assert found["0"] is found["3"]
    assert found["2"] is given


def test_a_text_that_is_no_rule_is_told_with_its_region() -> None:
    with pytest.raises(altprop.PlanError, match=r'regions\[1\]\.rule: there is no rule "df"'):
        resolve(plan("dfa", "df"))


def test_the_first_glob_gives_a_region_its_rule() -> None:
    rules = rules_of({"a.*": "frozen", "b": altprop.rules.get("frozen"), "*": "dfa"})
    assert [rule_by_glob(rules, region(name)) for name in ("a.1", "b", "c")] == [None, None, get("dfa")]
    with pytest.raises(altprop.CompileError, match='no rule is given for region "c"; add a glob'):
        rule_by_glob({"a": None}, region("c"))


def test_a_frozen_region_hears_from_nobody() -> None:
    made = make_plan(row(3), lambda one: None if one.name == "1" else get("dfa"), None)
    assert [r.rule for r in made.regions] == ["frozen", "dfa", "bp"]
    assert {c.target for c in made.connections} == {"2"}
