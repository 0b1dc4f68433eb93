"""An optimizer that the library does not know, in this one file: RMSprop, equal to torch's."""

import copy
import dataclasses

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.optim import Optimizer, TracedParameter

aten = torch.ops.aten


@dataclasses.dataclass
class RMSprop(Optimizer):
    """`v <- alpha v + (1 - alpha) g^2`, `p <- p - lr g / (sqrt(v) + eps)`."""

    alpha: float = 0.99
    eps: float = 1e-8

    @property
    def slots(self) -> tuple[str, ...]:
        """The mean square."""
        return ("square_avg",)

    def numbers(self, group: str, lr: float, step: int) -> dict[str, float]:
        """The rate."""
        return {f"{group}minus_lr": -lr}

    def update(self, traced: TracedParameter) -> None:
        """The single-tensor form of `torch.optim.RMSprop`."""
        call, gradient = traced.call, traced.gradient
        square = call(aten.mul_.Tensor, traced.states["square_avg"], self.alpha)
        square = call(aten.addcmul_.default, square, gradient, gradient, value=1 - self.alpha)
        root = call(aten.add_.Tensor, call(aten.sqrt.default, square), self.eps)
        traced.add_scaled(call(aten.div.Tensor, gradient, root), "minus_lr")


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    return kept.compile(model, "dkp", example_inputs=(x,), optimizer=RMSprop(lr=0.01, feedback_lr=0.02))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 5, generator=generator, dtype=torch.float64), torch.randint(3, (8,), generator=generator)


@pytest.mark.parametrize("schedule", [False, True])
def test_it_moves_parameters_and_feedback_as_torch_does(net: altprop.LocalNet, schedule: bool) -> None:
    x, y = data()
    inside, outside = copy.deepcopy(net), copy.deepcopy(net)
    step = inside.schedule(devices=2, batch=8).runtime("serial").step if schedule else inside.step
    by_torch = torch.optim.RMSprop(outside.model.parameters(), lr=0.01)
    feedback = torch.optim.RMSprop(outside.feedback_parameters(), lr=0.02)
    for _ in range(3):
        step(x, y)
        outside.zero_grad()
        outside.backward(x, y)
        by_torch.step()
        feedback.step()
    pairs = zip(inside.parameters(), outside.parameters(), strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-12) for one, other in pairs)
    assert not torch.equal(inside.feedback["2->0"], net.feedback["2->0"])
    assert "square_avg:0/weight" in "".join(inside.state_dict())


def test_one_without_operators_says_what_is_missing() -> None:
    @dataclasses.dataclass
    class Empty(Optimizer):
        pass

    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(altprop.CompileError, match=r"Empty: write update\(traced\)"):
        kept.compile(model, "dfa", example_inputs=(torch.randn(4, 5),), optimizer=Empty()).step(
            torch.randn(4, 5), torch.randint(3, (4,))
        )
