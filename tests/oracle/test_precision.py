"""Updates in few bits beside those in many: what is computed as a difference of near numbers is lost first."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import nn

import altprop

DEFAULT = "reclra(scale=0.1, units='beta')@edges"
TYPES = (torch.float32, torch.bfloat16)
NOISY = {"wm", "tp", "dtp", "ddtp"}
NEAR = 0.95
"""Cosine between two updates, from which on they count as the same but for rounding."""


class Net(nn.Module):
    """A convolution with a norm, a layer without an activation, and one with; (N, 1, 6, 6) to (N, 5)."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv, self.norm, self.phi = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), activation()
        self.linear, self.hidden = nn.Linear(216, 24), nn.Linear(24, 24)
        self.out = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.phi(self.norm(self.conv(x))).flatten(1)
        return self.out(self.phi(self.hidden(self.linear(z))))


def noise_is_the_same() -> bool:
    """Whether normal numbers of one seed are the same in both types; in older torches they are not."""
    drawn = [torch.randn(64, dtype=dtype, generator=torch.Generator().manual_seed(0)).float() for dtype in TYPES]
    return float((drawn[0] - drawn[1]).abs().max()) < 0.1


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 6, 6, generator=generator), torch.randint(5, (16,), generator=generator)


def moved(rule: str, activation: Callable[[], nn.Module], *, half: bool, hand: bool = False) -> dict[str, torch.Tensor]:
    """The updates of a new net's matrices and of its learned feedback, by `net.backward` or behind a loss by hand."""
    torch.manual_seed(0)
    model = Net(activation)
    name, _, plan = rule.partition("@")
    x, y = batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        net = altprop.compile(model, name, plan=plan or None, example_inputs=(x,))
        net.train()
        if hand:
            nn.functional.cross_entropy(net(x), y).backward()
        else:
            net.backward(x, y)
    return {n: p.grad for n, p in net.named_parameters() if p.grad is not None and p.dim() > 1}


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Between two directions."""
    return float(nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


CASES = [
    *itertools.product((DEFAULT, "reclra", "lra_e", "dkp", "kp", "bp"), (nn.ReLU, nn.Tanh, nn.GELU)),
    *itertools.product(("fa", "dfa", "wm", "pfa", "modular", "dtp", "ddtp", "tp", "local_loss"), (nn.ReLU,)),
]


@pytest.mark.third
@pytest.mark.parametrize(("rule", "activation"), CASES)
def test_autocast_moves_everything_the_same_way(rule: str, activation: type[nn.Module]) -> None:
    if rule in NOISY and not noise_is_the_same():
        pytest.skip("its noise is not the same in bfloat16")
    full, half = moved(rule, activation, half=False), moved(rule, activation, half=True)
    assert full.keys() == half.keys()
    assert [g.dtype for g in half.values()] == [torch.float32] * len(half), "gradients have their parameters' type"
    far = {name: cosine(full[name], half[name]) for name in full if cosine(full[name], half[name]) < NEAR}
    assert not far


def test_autocast_behind_a_loss_by_hand() -> None:
    full, half = (moved(DEFAULT, nn.ReLU, half=half, hand=True) for half in (False, True))
    assert min(cosine(full[name], half[name]) for name in full) > NEAR


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity])
def test_small_errors_are_not_rounded_away(activation: type[nn.Module]) -> None:
    """Ten layers below the output an error is 1e-12 of an activity, under feedback that starts small."""
    x, y = batch()
    found = {}
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        hidden = [layer for _ in range(9) for layer in (nn.Linear(24, 24), activation())]
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), activation(), *hidden, nn.Linear(24, 5))
        net = altprop.compile(model.to(dtype), DEFAULT.partition("@")[0], plan="edges", example_inputs=(x.to(dtype),))
        net.backward(x.to(dtype), y)
        found[dtype] = model[1].weight.grad
    assert found[torch.float64].abs().max() > 0
    torch.testing.assert_close(found[torch.float32].double(), found[torch.float64], rtol=1e-3, atol=0)
