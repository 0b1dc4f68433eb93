"""Feedback alignment inside regions of several matrices: autograd through layers that send errors over B is the oracle.

Attention holds its projections, and an LSTM the weights of all its steps, in one region. An error passes each matrix
there as it does between regions: by what stands in the matrix's place.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

WIDTH, HEADS, LENGTH = 8, 2, 5


class Attention(nn.Module):
    """Attention and a feed-forward network behind norms, and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, WIDTH)
        self.norm, self.projections, self.out = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.norm_two, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.scores = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(x))
        parts = self.projections(self.norm(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind()
        x = x + self.out(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        scores: torch.Tensor = self.scores(x + self.down(functional.gelu(self.up(self.norm_two(x)))))
        return scores


class _Over(torch.autograd.Function):
    """A linear layer whose errors go back over another matrix."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, back: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, back)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, error: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, back = ctx.saved_tensors
        flat = error.flatten(0, -2)
        return error @ back, flat.t() @ x.flatten(0, -2), flat.sum(0), None


class Over(nn.Module):
    """In the place of a linear layer."""

    def __init__(self, layer: nn.Linear, back: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.back = layer.weight, layer.bias, back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = _Over.apply(x, self.weight, self.bias, self.back)
        return made


@pytest.fixture(scope="module")
def captured() -> altprop.Captured:
    torch.manual_seed(0)
    return altprop.capture(Attention().double(), torch.randn(3, LENGTH, 3, dtype=torch.float64))


def copies(net: altprop.LocalNet) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that stand for weights, by the name of the layer."""
    for one in net.graph.feedback.values():
        yield one.stands_for.removesuffix(".weight"), net.feedback[one.name].detach()


@pytest.mark.parametrize("rule", ["fa", "kp(weight_decay=0.0)"])
def test_errors_pass_weights_inside_a_region_by_feedback(captured: altprop.Captured, rule: str) -> None:
    net = altprop.compile(captured, rule, seed=3)
    net.zero_grad()
    oracle = copy.deepcopy(net.model)
    for name, back in copies(net):
        setattr(oracle, name, Over(getattr(oracle, name), back))
    x, y = torch.randn(4, LENGTH, 3, dtype=torch.float64), torch.randint(4, (4, LENGTH))
    functional.cross_entropy(oracle(x).flatten(0, 1), y.flatten()).backward()
    net.backward(x, y)
    expected = dict(oracle.named_parameters())
    assert {"out", "projections", "up", "down", "scores"} == {name for name, _ in copies(net)}
    for name, parameter in net.model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-10, atol=1e-12), name
    if rule != "fa":
        for one in net.graph.feedback.values():
            own = dict(net.model.named_parameters())[one.stands_for]
            assert torch.equal(net.feedback[one.name].grad, own.grad), one.name


@pytest.mark.parametrize("rule", ["fa", "kp", "usf", "brsf"])
def test_each_operator_is_differentiated_once(captured: altprop.Captured, rule: str) -> None:
    net = altprop.compile(captured, rule)
    names = [str(node.target) for node in net.graph.programs["backward"].graph.graph.nodes]
    assert sum("attention" in name and "backward" in name for name in names) == 1
    assert sum("layer_norm_backward" in name for name in names) == 2
    assert sum("gelu_backward" in name for name in names) == 1
