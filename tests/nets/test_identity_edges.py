"""Connections over edges without weights: shortcuts that are added."""

import math

import pytest
import torch
from torch import nn

import altprop

pytestmark = pytest.mark.third


class Residual(nn.Module):
    """A block whose shortcut has a layer of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.down, self.out = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x))) + self.down(x)))


@pytest.mark.parametrize("rule", ["fa", "kp", "usf"])
def test_defect_17_a_shortcut_is_named_and_measured_as_an_identity(rule):
    torch.manual_seed(0)
    x, y = torch.randn(6, 8), torch.randint(3, (6,))
    net = altprop.compile(Residual(), rule, example_inputs=(x,))
    kinds = {c.name: c.feedback.kind for c in net.graph.connections}
    shortcuts = [name for name, kind in kinds.items() if kind == "identity"]
    assert len(shortcuts) == 1
    assert shortcuts[0] in ("b->down", "down->b")
    assert not any(name.startswith(shortcuts[0]) for name in net.feedback)
    measured = net.measure(x, y)
    assert measured.connections[shortcuts[0]].angle == 0.0
    assert [name for name, row in measured.connections.items() if row.exact] == shortcuts
    assert not any(math.isnan(one.angle) for one in measured.connections.values())
    assert any(values.get("feedback") == "identity" for *_, values in net.graph.to_networkx().edges(data=True))


def test_defect_17_an_edge_with_weights_is_no_identity():
    x = torch.randn(6, 8)
    plan = altprop.compile(Residual(), "fa", example_inputs=(x,)).plan
    named = tuple(altprop.Connection(c.source, c.target, altprop.Feedback("identity")) for c in plan.connections)
    with pytest.raises(altprop.PlanError, match="the edge passes weights, so it is no identity"):
        altprop.compile(Residual(), "fa", plan=altprop.WiringPlan(plan.regions, named), example_inputs=(x,))
