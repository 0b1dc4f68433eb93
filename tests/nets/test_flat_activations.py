"""Activations without a derivative: thresholds, steps, a winner among units, written as modules or by hand."""

from collections.abc import Callable

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.data import BatchSampler, load
from altprop.nn import Argmax, Heaviside, Round, Sign

pytestmark = pytest.mark.third


class ByHand(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.function(h)


FLAT = {
    "heaviside": Heaviside(),
    "round": Round(),
    "argmax": Argmax(),
    "cast": ByHand(lambda h: (h >= 0.1).double()),
    "ternary": ByHand(lambda h: (h > 0.5).double() - (h < -0.5).double()),
}


def model(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), activation, nn.Linear(6, 3)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 8, generator=generator).double(), torch.randint(3, (16,), generator=generator)


@pytest.mark.parametrize("name", FLAT)
def test_representation_alignment_by_hand(name):
    made, (x, y) = model(FLAT[name]), batch()
    net = kept.compile(made, rule="reclra(beta=0.7, scale=5.0)", example_inputs=(x[:2],))
    net.backward(x, y)
    h = made[0](x).detach()
    z = made[1](h)
    e_output = torch.softmax(made[2](z), 1).detach() - functional.one_hot(y, 3)
    e = z - made[1](h - 0.7 * e_output @ net.feedback["2->0"].detach())
    assert e.count_nonzero() > 0
    assert torch.allclose(made[0].weight.grad, e.T @ x / 16, atol=1e-10)


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("rule", ["dfa", "bp", "tp"])
def test_rules_with_a_derivative_refuse_them(name, rule):
    with pytest.raises(altprop.CompileError, match=r'region "0"|has no derivative'):
        kept.compile(model(FLAT[name]), rule=rule, example_inputs=(batch()[0][:2],))


def test_a_gate_by_its_own_sign_keeps_its_derivative():
    """`h (h > 0)` is a relu: the errors pass it, and it is the region's activation."""
    one, other = model(ByHand(lambda h: h * (h > 0))), model(nn.ReLU())
    x, y = batch()
    for made in (one, other):
        kept.compile(made, rule="dfa", example_inputs=(x[:2],)).backward(x, y)
    assert torch.allclose(one[0].weight.grad, other[0].weight.grad, atol=1e-12)


def test_what_they_return():
    h = torch.tensor([[-0.3, 0.0, 0.8], [1.2, 1.2, -3.0]])
    assert Heaviside()(h).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert Round()(h).tolist() == [[0, 0, 1], [1, 1, -3]]
    assert Argmax()(h).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_threshold_units_learn():
    data = load("digits")
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 64), Heaviside(), nn.Linear(64, 64), Sign(), nn.Linear(64, 10)]
    example = (data.inputs(data.train.images[:2]),)
    optimizer = altprop.optim.AdamW(lr=3e-3)
    net = kept.compile(nn.Sequential(*layers), rule="reclra", example_inputs=example, optimizer=optimizer)
    for _ in range(8):
        for images, labels in BatchSampler(data, 64, seed=0).epoch():
            net.step(images, labels)
    net.eval()
    right = net(data.inputs(data.test.images)).argmax(1) == data.test.labels
    assert right.float().mean() > 0.82
