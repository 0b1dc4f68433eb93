"""Rules say how they are wired as data; class attributes, the older form, are gathered into it."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from networks import region

import altprop
from altprop.ir.plan import Feedback
from altprop.ir.region import Region
from altprop.rules import About, DirectFeedbackAlignment, FeedbackAlignment, Recipe, Rule, Wiring, bare, get
from altprop.rules.about import equation_of
from altprop.rules.base import RULES
from altprop.rules.decay import Decaying
from altprop.rules.wiring import is_proportional

REGION = region("a")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    known = dict(RULES)
    yield
    RULES.clear()
    RULES.update(known)


def _dense(rule: Rule, source: Region, target: Region, adjacent: bool) -> Feedback:
    return Feedback("dense", {"scale": 0.5})


def new_form() -> type[Rule]:
    class Same(Rule):
        about: ClassVar[About] = About("same", "one line", recipe=Recipe(lr=0.5), equation="e = {strength} d")
        wiring: ClassVar[Wiring] = Wiring(
            plan="chain", reads_derivative=False, draws_noise=True, feedback=_dense, outer=lambda rule: None
        )
        strength: float = 2.0

        def error(self, local: Any, d: torch.Tensor) -> torch.Tensor:
            return d * self.strength

    return dataclasses.dataclass(frozen=True)(Same)


def old_form() -> type[Rule]:
    class Same(Rule):
        name: ClassVar[str] = "same"
        summary: ClassVar[str] = "one line"
        recipe: ClassVar[Recipe] = Recipe(lr=0.5)
        equation = "e = {strength} d"
        plan: ClassVar[str] = "chain"
        needs_derivative: ClassVar[bool] = False
        draws_noise: ClassVar[bool] = True
        strength: float = 2.0

        def error(self, local: Any, d: torch.Tensor) -> torch.Tensor:
            return d * self.strength

        def feedback(self, source: Region, target: Region, adjacent: bool) -> Feedback:
            return Feedback("dense", {"scale": 0.5})

        def outer_rule(self) -> Rule | None:
            return None

    return dataclasses.dataclass(frozen=True)(Same)


@pytest.mark.parametrize("form", [new_form, old_form])
def test_both_forms_say_the_same(form: Any) -> None:
    form()
    rule: Any = get("same(strength=3.0)")
    assert str(rule) == "same(strength=3.0)"
    assert rule.about == dataclasses.replace(rule.about, name="same", summary="one line", recipe=Recipe(lr=0.5))
    assert equation_of(rule) == "e = 3.0 d"
    assert not is_proportional(rule)
    assert (rule.wiring.plan, rule.wiring.reads_derivative, rule.wiring.draws_noise) == ("chain", False, True)
    assert rule.wiring.feedback(rule, REGION, REGION, True) == Feedback("dense", {"scale": 0.5})
    assert rule.wiring.outer(rule) is None
    assert rule.wiring.inner(rule) is rule
    assert altprop.rules.available()["same"] == f"one line [{Recipe(lr=0.5)}]"
    # What reads the older names goes on reading them.
    assert (rule.name, rule.plan, rule.needs_derivative, rule.learns_alone) == ("same", "chain", False, False)
    assert (rule.outer_rule(), rule.inner_rule(), rule.error_equation()) == (None, rule, "e = 3.0 d")
    assert rule.feedback(REGION, REGION, True).options == {"scale": 0.5}


def test_a_class_in_the_older_form_extends_one_of_ours() -> None:
    @dataclasses.dataclass(frozen=True)
    class Learned(FeedbackAlignment, Decaying):
        name: ClassVar[str] = "learned"

        def feedback(self, source: Region, target: Region, adjacent: bool) -> Feedback:
            usual = super().feedback(source, target, adjacent)  # type: ignore[misc]
            return dataclasses.replace(usual, learning=True)

        def is_proportional(self) -> bool:
            return self.scale == 1

    rule: Any = Learned(scale=2.0, weight_decay=0.1)
    assert rule.wiring.feedback(rule, REGION, REGION, True) == Feedback(
        "forward", {"distribution": "kaiming_uniform", "scale": 2.0}, True
    )
    assert rule.wiring.along_edges
    assert rule.wiring.output(rule, get("bp")) == get("bp(weight_decay=0.1)")
    assert is_proportional(Learned())
    assert not is_proportional(rule)
    assert str(DirectFeedbackAlignment()) == "dfa"


def test_an_option_may_have_an_older_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Planned(Rule):
        about: ClassVar[About] = About("planned")
        plan: float = 0.5
        source: str = "here"

    rule = Planned(plan=0.25)
    assert (rule.plan, rule.source, rule.wiring.plan, rule.about.source) == (0.25, "here", "direct", "")
    assert str(get("planned(plan=0.25)")) == "planned(plan=0.25)"


def test_a_rule_without_an_equation_does_not_print_that_of_its_base() -> None:
    class Odd(Rule):
        def error(self, local: Any, d: torch.Tensor) -> torch.Tensor:
            return d

    class Plain(Rule):
        about: ClassVar[About] = About("plain")

    assert equation_of(Odd()) == "e = error(h, d)"
    assert equation_of(Plain()) == "e = phi'(h) * d"
    assert equation_of(get("reclra(beta=0.5)")) == "e = z - phi(h - 0.5 d)"
    assert not is_proportional(Odd())
    assert is_proportional(Plain())
    # What an `error` of one's own makes of zero is not known; ours, which rules are built on, says so.
    kept = [rule.wiring.keeps_zero for rule in (Odd(), Plain(), get("reclra"), get("lra_e"))]
    assert kept == [False, True, True, True]


def test_something_else_in_their_place_is_one_sentence() -> None:
    with pytest.raises(altprop.RuleError, match=r"rule class Wrong: write about = About\(name=...\) and wiring = Wir"):

        class Wrong(Rule):
            wiring = "chain"  # type: ignore[assignment]


def test_a_rule_that_makes_its_messages_itself_is_told_of_a_matrix() -> None:
    class Given:
        connection = altprop.Connection("b", "a", Feedback("dense"))

    with pytest.raises(altprop.RuleError, match='connection b->a: it carries "dense" feedback, but its rule makes'):
        bare(Given())  # type: ignore[arg-type]


def test_a_class_that_takes_over_a_name_is_not_the_rule_of_that_name() -> None:
    class Changed(altprop.rules.LocalLoss):
        """Says no name of its own."""

    assert altprop.rules.get("local_loss").__class__ is altprop.rules.LocalLoss
    assert Changed.about.name == "local_loss"
