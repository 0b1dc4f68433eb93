"""`altprop.examine(..., data=)`: the alignment of each wiring, measured on a few batches."""

import math

import pytest
import torch
from torch import nn

import altprop


def _batches(count=6):
    torch.manual_seed(0)
    teacher = nn.Linear(8, 3)
    x = torch.randn(count, 16, 8)
    return [(one, teacher(one).argmax(1)) for one in x]


def _model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def test_wirings_are_weighed_by_their_alignment():
    model, batches = _model(), _batches()
    before = [p.clone() for p in model.parameters()]
    report = altprop.examine(model, (batches[0][0],), rule="bp", data=batches)
    assert [one.plan for one in report.aligned] == ["direct", "blocks", "edges"]
    found = {one.plan: one for one in report.aligned}
    # Backpropagation follows the forward's edges alone, and there it is the gradient.
    assert found["edges"].alignment == pytest.approx(1, abs=1e-5)
    assert found["edges"].seconds > 0
    assert "bp" in found["direct"].problem  # a wiring that the rule cannot follow says why
    assert "edges  alignment 1.00, a step" in str(report)
    for then, now in zip(before, model.parameters(), strict=True):
        assert torch.equal(then, now)


def test_a_plan_is_measured_alone():
    batches = _batches()
    report = altprop.examine(_model(), (batches[0][0],), rule="reclra", plan="direct", data=iter(batches))
    (only,) = report.aligned
    assert only.plan == "direct"
    assert -1 <= only.alignment < 0.99


def test_feedback_that_starts_as_the_weights_is_aligned():
    batches = _batches()
    aligned = {
        rule: altprop.examine(_model(), (batches[0][0],), rule=rule, plan="edges", data=batches).aligned[0].alignment
        for rule in ("reclra(units='beta')", "reclra(units='beta', start='weights', beta=0.01)")
    }
    random, weights = aligned.values()
    assert weights > 0.9 > random


def test_data_without_a_batch_is_refused():
    with pytest.raises(altprop.CompileError, match=r"examine\(data=...\) has no batch"):
        altprop.examine(_model(), (torch.zeros(4, 8),), rule="reclra", data=[])


def test_a_batch_that_is_no_pair_is_told():
    x = torch.zeros(4, 8)
    for batch, kind in ((x, "Tensor"), ((x, x, x), "tuple")):
        with pytest.raises(altprop.CompileError, match=f"batch 0 is {kind}, no pair"):
            altprop.examine(_model(), (x,), rule="reclra", data=[batch])


def test_the_output_layer_which_is_always_exact_does_not_count():
    batches = _batches()
    rule = {"4": "bp", "*": "frozen"}
    (only,) = altprop.examine(_model(), (batches[0][0],), rule=rule, plan="edges", data=batches).aligned
    assert math.isnan(only.alignment)
    assert not only.problem
