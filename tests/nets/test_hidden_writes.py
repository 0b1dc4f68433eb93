"""Writes that autograd does not see: refused where a program would send no error through them, followed elsewhere."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.ir.errors import CompileError

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


class Writing(nn.Module):
    """Writes between two layers."""

    def __init__(self, write: Callable[["Writing", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.out, self.write = nn.Linear(6, 6), nn.Linear(6, 3), write
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.write(self, self.first(x)))
        return found


def under_no_grad(_: Writing, h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        h.clamp_(-0.3, 0.3)
    return h


def a_part_under_no_grad(_: Writing, h: torch.Tensor) -> torch.Tensor:
    h = h * 1
    with torch.no_grad():
        h[:, :3].mul_(2)
    return h.tanh()


def through_detach(_: Writing, h: torch.Tensor) -> torch.Tensor:
    h.detach().clamp_(-0.3, 0.3)
    return h


def a_part_through_detach(_: Writing, h: torch.Tensor) -> torch.Tensor:
    h.detach()[:, 0] = 0
    return h.sin() + h


def draws_gamma_on_meta() -> bool:
    """Whether this torch tells what shape a draw of a gamma distribution has; before 2.13 none does."""
    try:
        return torch._standard_gamma(torch.ones(2, device="meta")).shape == (2,)
    except NotImplementedError:
        return False


needs_gamma = pytest.mark.skipif(not draws_gamma_on_meta(), reason="this torch cannot trace a gamma distribution")


def sampled(_: Writing, h: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Gamma(h.exp(), 1.0).rsample()  # whose rsample writes through detach


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (under_no_grad, "under torch.no_grad"),
        (a_part_under_no_grad, "under torch.no_grad"),
        (through_detach, "through detach"),
        (a_part_through_detach, "through detach"),
        pytest.param(sampled, "through detach", marks=needs_gamma),
    ],
)
def test_a_write_that_autograd_does_not_see_is_refused(
    write: Callable[[Writing, torch.Tensor], torch.Tensor], how: str
) -> None:
    with pytest.raises(CompileError, match=f"the forward writes in place {how}"):
        altprop.capture(Writing(write), X)


def running_mean(model: Writing, h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        model.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return h - model.mean


def a_mask(_: Writing, h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        mask = torch.zeros_like(h)
        mask[:, 2:] = 1
        scale = h * 2
        scale.clamp_(0, 1)
    return h * mask * scale


def a_copy(_: Writing, h: torch.Tensor) -> torch.Tensor:
    seen = h.detach().clone()
    seen.clamp_(0, 1)
    last = h * 2
    kept = last.detach()
    kept.relu_()  # nobody reads `last` behind it
    return h * seen + kept


@pytest.mark.parametrize("write", [running_mean, a_mask, a_copy])
def test_writes_that_hide_nothing_are_followed(write: Callable[[Writing, torch.Tensor], torch.Tensor]) -> None:
    model = Writing(write)
    twin = copy.deepcopy(model)
    net = altprop.compile(model, "bp", example_inputs=(X,))
    wanted = F.cross_entropy(twin(X), Y)
    wanted.backward()
    assert torch.allclose(net.backward(X, Y), wanted)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(own.grad, other.grad, atol=1e-6)
    assert torch.allclose(model.mean, twin.mean)
