"""Graphs as text: at every level, and read as the algorithm of the paper."""

from collections.abc import Callable

import kept
import pytest
import torch
from tiny import MODELS, compiled
from torch import nn

import altprop
from altprop.rules import get

Golden = Callable[[str, str], None]
LEVELS = {
    "captured": "capture",
    "cut": "cut_regions",
    "neurons": "insert_error_neurons",
    "wired": "connect_skip_errors",
    "feedback": "insert_feedback",
    "derived": "derive_updates",
}


@pytest.mark.parametrize("level", LEVELS)
def test_every_level(golden: Golden, level: str) -> None:
    golden(f"graph-mlp-reclra-direct-{level}", str(compiled("mlp", "reclra", "direct").history[LEVELS[level]]))


@pytest.mark.parametrize(
    ("model", "rule", "plan"),
    [
        ("mlp", "reclra", "chain"),
        ("mlp", "reclra(beta=0.25, feedback_learning='fixed')", "direct"),
        ("nine", "reclra", "blocks(gap=3)"),
        ("residual", "reclra", "blocks"),
        ("encoder", "reclra", "direct"),
        ("encoder", "fa", "chain"),
        ("mlp", "bp", "chain"),
    ],
)
def test_wired(golden: Golden, model: str, rule: str, plan: str) -> None:
    graph = compiled(model, rule, plan).history["insert_feedback"]
    title = f"{model}-{rule.partition('(')[0]}-{plan.partition('(')[0]}" + ("-options" if "beta" in rule else "")
    golden(f"graph-{title}", str(graph))


def lines(name: str, rule: str, plan: str, begin: str) -> list[str]:
    text = str(compiled(name, rule, plan).graph)
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(begin)]


def test_it_reads_as_algorithm_1_of_the_paper() -> None:
    """Every third layer and the last one hear from the output, the others from the next one (lines 15 to 20)."""
    found = lines("nine", "reclra", "blocks(gap=3)", "error fc")
    heard = {9: None, 8: 9, 7: 8, 6: 9, 5: 6, 4: 5, 3: 9, 2: 3, 1: 2}
    for line, (layer, source) in zip(found, heard.items(), strict=True):
        d = "dLoss/d output" if source is None else f"E[fc{source}->fc{layer}] e[fc{source}]"
        e = "phi'(h) * d" if source is None else "z - phi(h - 0.1 d)"
        assert line.startswith(f"error fc{layer} d = {d} e = {e} (N, ")


def test_forward_shaped_feedback_names_the_jacobian() -> None:
    found = lines("mlp", "fa", "chain", "error fc1")
    assert found == ["error fc1 d = J[fc2->fc1; B]^T e[fc2] e = phi'(h) * d (N, 6) fa"]
    found = lines("mlp", "bp", "chain", "error fc1")
    assert found == ["error fc1 d = J[fc2->fc1]^T e[fc2] e = phi'(h) * d (N, 6) bp"]


def test_a_region_that_hears_twice_adds_the_messages() -> None:
    (found,) = lines("encoder", "bp", "chain", "error layer.self_attn")
    out = "layer.self_attn"
    assert f"d = J[layer.linear2->{out}]^T e[layer.linear2] + J[layer.linear1->{out}]^T e[layer.linear1]" in found


def test_derived_counts_operators_of_updates_and_programs() -> None:
    graph = compiled("mlp", "reclra", "direct").graph
    text = str(graph)
    for update in graph.updates.values():
        count = sum(node.op == "call_function" for node in update.graph.nodes)
        assert f"update {update.region}  {count} operators" in text.replace("operators ", "operators")
    assert lines("mlp", "reclra", "direct", "update fc1")[0].endswith("fc1.weight, fc1.bias, feedback fc3->fc1")
    assert [line.split()[1] for line in text.splitlines() if line.startswith("program ")] == list(graph.programs)


def test_frozen_regions_and_devices_are_marked() -> None:
    net = compiled("mlp", "reclra", "direct")
    plan = altprop.WiringPlan(
        (
            altprop.RegionPlan("fc1", "frozen"),
            altprop.RegionPlan("fc2", "dfa", device="cuda:1"),
            altprop.RegionPlan("fc3", "bp"),
        ),
        (altprop.Connection("fc3", "fc2", altprop.Feedback("dense")),),
    )
    rules = {"fc1": None, "fc2": get("dfa"), "fc3": get("bp")}
    graph = net.history["insert_error_neurons"].replace(plan=plan, rules=rules)
    shown = str(graph).splitlines()
    assert "frozen" in next(line for line in shown if line.startswith("region fc1"))
    assert not any(line.startswith("error fc1") for line in shown)
    assert "on cuda:1" in next(line for line in shown if line.startswith("region fc2"))


@pytest.mark.parametrize(("options", "sent"), [("", "e[2]"), ("(options={'at': 'output'})", "dLoss/d output of 2")])
def test_an_output_with_an_activation_sends_its_error(options: str, sent: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2), nn.Sigmoid())
    net = kept.compile(model, rule=f"dfa{options}", loss="mse", example_inputs=(torch.zeros(2, 3),))
    assert f"E[2->0] {sent} " in str(net.graph)


def test_text_does_not_depend_on_chance() -> None:
    again = kept.compile(MODELS["mlp"][0](), rule="reclra", plan="direct", example_inputs=(torch.ones(9, 7),))
    first = compiled("mlp", "reclra", "direct")
    for name, graph in first.history.items():
        assert str(graph) == str(again.history[name])
