"""A norm in front of a layer learns what it learned, without the layer's input gradient."""

import pytest
import torch
from torch import nn

import altprop
from altprop.passes.tune import affine


class Blocks(nn.Module):
    """Two residual blocks behind norms: one of a layer norm and two projections, one of an RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.norm, self.gate, self.value = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale, self.up, self.down = nn.RMSNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.first(x)
        y = self.norm(z)
        z = z + torch.sigmoid(self.gate(y)) * self.value(y)
        z = z + self.down(torch.tanh(self.up(self.scale(z))))
        scores: torch.Tensor = self.last(z)
        return scores


@pytest.fixture(scope="module")
def captured() -> altprop.Captured:
    torch.manual_seed(0)
    model = Blocks().double()
    for norm in (model.norm, model.scale):
        nn.init.normal_(norm.weight)
    nn.init.normal_(model.norm.bias)
    return altprop.capture(model, torch.randn(4, 32, 5, dtype=torch.float64))


@pytest.mark.parametrize(("rule", "spared"), [("dfa", 3), ("bp", 0)])
def test_norms_learn_the_same(
    captured: altprop.Captured, rule: str, spared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = torch.randn(4, 32, 5, dtype=torch.float64), torch.randint(3, (4, 32))
    count, found = learned(altprop.compile(captured, rule), x, y)
    monkeypatch.setattr(affine, "spare_input_gradients", lambda graph: 0)
    before, expected = learned(altprop.compile(captured, rule), x, y)
    assert before - count == spared
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-12, atol=1e-12), name
        assert gradient.abs().max() > 1e-6


def learned(net: altprop.LocalNet, x: torch.Tensor, y: torch.Tensor) -> tuple[int, dict[str, torch.Tensor]]:
    """How many products of matrices a step makes, and the gradients."""
    net.zero_grad()
    net.backward(x, y)
    gradients = {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}
    return products(net), gradients


def products(net: altprop.LocalNet) -> int:
    return sum(node.target is torch.ops.aten.mm.default for node in net.graph.programs["backward"].graph.graph.nodes)
