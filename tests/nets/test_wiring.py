"""Named plans: which error goes where in a chain, direct, in blocks; and how wiring is checked and ordered."""

import dataclasses

import kept
import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import region, residual, row, wired
from tiny import Residual, compiled
from torch import nn

import altprop
from altprop import Connection, Feedback, PlanError, RegionPlan, WiringPlan
from altprop.ir.region import Region, forward_edges
from altprop.ir.verify import verify
from altprop.rules import Rule, get
from altprop.rules.plans import Network, make_plan


def test_chain() -> None:
    assert wired(row(4), "chain") == {"1": ["2"], "2": ["3"], "3": ["4"], "4": []}


def test_direct() -> None:
    assert wired(row(4), "direct") == {"1": ["4"], "2": ["4"], "3": ["4"], "4": []}


@pytest.mark.parametrize(("depth", "gap"), [(9, 3), (9, 4), (7, 2), (5, 1), (4, 9)])
def test_gaps_are_algorithm_1_of_the_paper(depth: int, gap: int) -> None:
    """Lines 15 to 19: layer l hears from the output L if l mod g = 0, else from l + 1."""
    expected = {str(n): [str(depth) if n % gap == 0 else str(n + 1)] for n in range(1, depth)}
    assert wired(row(depth), f"blocks(gap={gap})") == {**expected, str(depth): []}


def test_groups_of_three_without_blocks() -> None:
    assert wired(row(7), "blocks") == wired(row(7), "blocks(gap=3)")


def test_blocks_end_at_the_output_and_are_chains_inside() -> None:
    assert wired(residual(), "blocks") == {
        "stem": ["out"],
        "a.1": ["a.2"],
        "a.2": ["out"],
        "b.1": ["b.2"],
        "b.2": ["out"],
        "out": [],
    }


def test_blocks_of_the_model_itself() -> None:
    plan = compiled("residual", "reclra", "blocks").plan
    assert [c.name for c in plan.connections] == [
        "fc->blocks.1.conv2",
        "blocks.1.conv2->blocks.1.conv1",
        "fc->blocks.0.conv2",
        "blocks.0.conv2->blocks.0.conv1",
        "fc->stem",
    ]


def test_no_second_signal_leaks_along_a_shortcut() -> None:
    """On the chain a region that two regions read hears from one of them; exact rules hear from both."""
    assert wired(residual(), "chain")["stem"] == ["a.1"]
    assert sorted(wired(residual(), "chain", "bp")["stem"]) == ["a.1", "a.2"]
    assert sorted(wired(residual(), None, "fa")["a.2"]) == ["b.1", "b.2"]


def test_each_rule_has_its_own_plan() -> None:
    assert wired(row(4), None, "dfa") == wired(row(4), "direct", "dfa")
    assert wired(row(4), None, "fa") == wired(row(4), "chain", "fa")
    assert wired(row(4), None, "reclra") == wired(row(4), get("reclra").plan, "reclra")


def test_inner_rule_of_blocks() -> None:
    rule = get("reclra(inner='backprop')")
    plan = make_plan(residual(), lambda _: rule, "blocks")
    assert {r.name: r.rule for r in plan.regions} == {
        "stem": str(rule),
        "a.1": "bp",
        "a.2": str(rule),
        "b.1": "bp",
        "b.2": str(rule),
        "out": "bp",
    }
    kinds = {c.name: c.feedback.kind for c in plan.connections}
    assert kinds["a.2->a.1"] == "transpose"
    assert kinds["out->a.2"] == "dense"


def test_several_outputs_reach_what_leads_to_them() -> None:
    network = Network.of([region("body"), region("x", ("body",), output=True), region("y", ("body",), output=True)])
    heard = wired(network, "direct")
    assert sorted(heard["body"]) == ["x", "y"]
    assert heard["x"] == heard["y"] == []


def test_a_rule_for_each_region() -> None:
    rules = {"1": get("dfa"), "2": get("reclra(beta=0.3)"), "3": get("fa"), "4": get("bp")}
    plan = make_plan(row(4), lambda r: rules[r.name], None)
    assert [r.rule for r in plan.regions] == ["dfa", "reclra(beta=0.3)", "fa", "bp"]
    assert {c.name: c.feedback.kind for c in plan.connections} == {
        "4->1": "dense",
        "4->2": "dense",
        "4->3": "forward",
    }
    assert plan.name == "direct and chain", "a reader knows these names; that they were not asked for tells nothing"
    assert make_plan(row(4), lambda _: None, None).name == "no wiring"


def test_a_region_without_parameters_is_frozen() -> None:
    network = row(3)
    bare = dataclasses.replace(network.regions[0], parameters=())
    plan = make_plan(Network.of([bare, *network.regions[1:]]), lambda _: get("dfa"), None)
    assert plan.region("1").rule == "frozen"


@pytest.mark.parametrize("text", ["ring", "chain(gap=2)", "blocks(gap=x)", "direct;", "", "blocks()"])
def test_unknown_plans_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="there are chain, direct, blocks and blocks"):
        wired(row(4), text)


def test_a_gap_of_nothing_is_refused() -> None:
    with pytest.raises(PlanError, match="a gap is one region or more"):
        wired(row(4), "blocks(gap=0)")


def test_rules_along_edges_cannot_be_direct() -> None:
    with pytest.raises(PlanError, match=r'rule "fa" sends errors backwards .* use plan="chain"'):
        wired(row(3), "direct", "fa")


def test_errors_are_sent_when_they_are_complete() -> None:
    for plan in ("chain", "direct", "blocks"):
        made = make_plan(residual(), lambda _: get("reclra"), plan)
        place = {name: index for index, name in enumerate(made.order())}
        assert all(place[c.source] < place[c.target] for c in made.connections)
        targets = [place[c.target] for c in made.connections]
        assert targets == sorted(targets)


@given(st.integers(2, 8), st.data())
def test_every_region_hears_from_the_output_in_every_plan(count: int, data: st.DataObject) -> None:
    """Random forward graphs: all plans are free of cycles and bring a signal to every region."""
    regions = [region("0")]
    for n in range(1, count):
        more = data.draw(st.sets(st.integers(0, n - 1), max_size=2))
        reads = tuple(str(k) for k in sorted({n - 1} | more))
        regions.append(region(str(n), reads, data.draw(st.sampled_from(["", "a", "b"])), output=n == count - 1))
    network = Network.of(regions)
    for plan, rule in (("chain", "reclra"), ("direct", "dfa"), ("blocks", "reclra"), (None, "fa"), ("chain", "bp")):
        made = make_plan(network, lambda _, rule=rule: get(rule), plan)
        made.check([r.name for r in regions], [regions[-1].name])
        assert len({c.name for c in made.connections}) == len(made.connections)
    exact = make_plan(network, lambda _: get("bp"), None)
    assert {(c.target, c.source) for c in exact.connections} == set(forward_edges(network.regions).edges)


def two(*connections: Connection) -> WiringPlan:
    return WiringPlan((RegionPlan("0", "dfa"), RegionPlan("2", "dfa"), RegionPlan("4", "bp")), connections)


def link(pair: str, kind: str = "dense", **options: object) -> Connection:
    return Connection(*pair.split("->"), Feedback(kind, options))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (two(link("4->2", "bogus"), link("4->0")), r'connections\[0\] .*feedback\.kind: there is no kind "bogus"'),
        (two(link("4->2"), link("4->0", "transpose")), r"connections\[1\] .*4 does not read 0; use a direct kind"),
        (two(link("4->2"), link("4->0", size=3)), r'connections\[1\]\.feedback\.options: "dense" has no option "size"'),
        (two(link("4->2"), link("4->0", distribution="flat")), 'feedback distribution "flat": choose from'),
    ],
)
def test_wrong_connections_are_refused(plan: WiringPlan, message: str) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with pytest.raises(PlanError, match=message):
        altprop.compile(model, rule="dfa", plan=plan, example_inputs=(torch.zeros(3, 5),))


def test_the_verifier_catches_connections_out_of_order() -> None:
    graph = compiled("residual", "reclra", "blocks").history["connect_skip_errors"]
    verify(graph, "wired")
    with pytest.raises(altprop.VerifyError, match=r"sent before the error of blocks\.1\.conv2 is complete"):
        verify(graph.replace(connections=graph.connections[::-1]), "wired", after="a broken pass")


def test_plan_as_networkx() -> None:
    plan = compiled("nine", "reclra", "blocks(gap=3)").plan
    graph = plan.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert sorted(graph.successors("fc9")) == ["fc3", "fc6", "fc8"]
    assert graph.edges["fc9", "fc3", "fc9->fc3"] == {"kind": "dense", "learning": True}


def test_blocks_of_a_fresh_model_do_not_depend_on_the_compilation_before() -> None:
    net = kept.compile(Residual(), rule="reclra", plan="blocks", example_inputs=(torch.zeros(2, 3, 8, 8),))
    assert net.plan == compiled("residual", "reclra", "blocks").plan


def test_a_rule_may_choose_the_feedback() -> None:
    class Loud(Rule):
        def feedback(self, source: Region, target: Region, adjacent: bool) -> Feedback:
            return Feedback("channel" if adjacent else "dense", {"scale": 2.0})

    plan = make_plan(row(3), lambda _: Loud(), "direct")
    assert {c.name: c.feedback.kind for c in plan.connections} == {"3->1": "dense", "3->2": "channel"}
