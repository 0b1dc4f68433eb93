"""Plans along every forward edge, in whole or inside blocks and stages; and chains of blocks."""

import dataclasses

import pytest
from networks import region, residual, row, wired

from altprop import PlanError
from altprop.ir.region import forward_edges
from altprop.rules import get
from altprop.rules.plans import Network, make_plan


@pytest.mark.parametrize("rule", ["reclra", "lra_e", "dfa", "dkp", "kp", "bp"])
def test_every_reader_is_heard(rule: str) -> None:
    """Skips too; the regions and ways are those of backpropagation."""
    plan = make_plan(residual(), lambda _: get(rule), "edges")
    assert {(c.target, c.source) for c in plan.connections} == set(forward_edges(residual().regions).edges)
    kinds = {c.feedback.kind for c in plan.connections}
    assert kinds == {"transpose" if rule == "bp" else "forward"}
    assert {c.feedback.learning for c in plan.connections} == {rule not in ("bp", "dfa")}


def test_a_stem_hears_from_the_block_and_over_its_shortcut() -> None:
    assert sorted(wired(residual(), "edges")["stem"]) == ["a.1", "a.2"]
    assert wired(residual(), "chain")["stem"] == ["a.1"]


def test_scale_and_distribution_go_along() -> None:
    """What is "normal" between output and region is drawn as torch draws weights where it stands for some."""
    plan = make_plan(row(3), lambda _: get("dfa(scale=0.5)"), "edges")
    assert {str(dict(c.feedback.options)) for c in plan.connections} == {"{'scale': 0.5}"}
    plan = make_plan(row(3), lambda _: get("reclra(distribution='xavier_normal')"), "edges")
    assert {c.feedback.options["distribution"] for c in plan.connections} == {"xavier_normal"}


@pytest.mark.parametrize("rule", ["tp", "dtp"])
def test_rules_that_make_their_messages_are_refused(rule: str) -> None:
    with pytest.raises(PlanError, match=f'the rule "{rule}" makes its messages itself, .* use plan="chain"'):
        make_plan(row(4), lambda _: get(rule), "edges")


def test_edges_inside_blocks_and_direct_between_them() -> None:
    plan = make_plan(residual(), lambda _: get("reclra"), "blocks(inside='edges')")
    kinds = {c.name: c.feedback.kind for c in plan.connections}
    assert kinds == {
        "out->stem": "dense",
        "a.2->a.1": "forward",
        "out->a.2": "dense",
        "b.2->b.1": "forward",
        "out->b.2": "dense",
    }


def stages() -> Network:
    """Two stages of two blocks of two regions, each block with a shortcut, between a stem and an output."""
    regions, before = [region("stem")], "stem"
    for block in ("s.0", "s.1", "t.0", "t.1"):
        regions.append(region(f"{block}.1", (before,), block))
        regions.append(region(f"{block}.2", (f"{block}.1", before), block))
        before = f"{block}.2"
    return Network.of([*regions, region("out", (before,), output=True)])


def test_edges_inside_stages() -> None:
    heard = wired(stages(), "blocks(by='stage', inside='edges')")
    assert {target for target, sources in heard.items() if sources == ["out"]} == {"stem", "s.1.2", "t.1.2"}
    assert sorted(heard["s.0.2"]) == ["s.1.1", "s.1.2"]
    assert heard["t.0.1"] == ["t.0.2"]


def test_each_block_from_the_next_one() -> None:
    heard = wired(stages(), "blocks(ends='next')")
    assert [heard[name] for name in ("stem", "s.0.2", "s.1.2", "t.0.2", "t.1.2")] == [
        ["s.0.2"],
        ["s.1.2"],
        ["t.0.2"],
        ["t.1.2"],
        ["out"],
    ]
    assert heard["s.0.1"] == ["s.0.2"]


def test_blocks_are_what_they_were() -> None:
    assert wired(stages(), "blocks") == wired(stages(), "blocks(inside='chain', ends='output', by='block')")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("blocks(inside='ring')", r"inside='ring'\)\": choose chain or edges"),
        ("blocks(ends='first')", r"ends='first'\)\": choose output or next"),
        ("blocks(by='colour')", r"by='colour'\)\": choose block or stage"),
        ("edges(gap=2)", r'there is no plan "edges\(gap=2\)"'),
    ],
)
def test_wrong_options_are_refused(plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        wired(residual(), plan)


def test_a_user_rule_follows_the_edges_by_its_own_learning() -> None:
    rule = get("reclra(feedback_learning='fixed')")
    plan = make_plan(row(3), lambda _: rule, "edges")
    assert not any(c.feedback.learning for c in plan.connections)
    assert dataclasses.asdict(plan)["name"] == "edges"
