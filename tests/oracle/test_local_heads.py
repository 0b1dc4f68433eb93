"""Local losses of other forms: fixed and linear heads, and goodness, each beside its equations in NumPy."""

import kept
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.third

BOUND = {"abs": 1e-10}


def numpy(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().numpy().copy()


def two_layers(outputs: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, outputs)).double()


@pytest.mark.parametrize("head", ["linear", "fixed"])
def test_a_head_without_a_bias(head):
    model, x, y = two_layers(3), torch.randn(8, 5).double(), torch.randint(3, (8,))
    net = kept.compile(model, f"local_loss(beta=0, head='{head}')", example_inputs=(x,))
    net.backward(x, y)
    a = numpy(net.feedback["0:classifier.weight"])
    z = np.tanh(numpy(model[0](x)))
    scores = np.exp(z @ a.T)
    wrong = scores / scores.sum(1, keepdims=True) - np.eye(3)[y.numpy()]
    e = (1 - z**2) * (wrong @ a)
    assert numpy(model[0].weight.grad) == pytest.approx(e.T @ numpy(x) / 8, **BOUND)
    learned = net.feedback["0:classifier.weight"].grad
    if head == "fixed":
        assert learned is None or not learned.any()
    else:
        assert numpy(learned) == pytest.approx(wrong.T @ z / 8, **BOUND)


@pytest.mark.parametrize("classes", [1, 2])
def test_goodness_of_a_doubled_batch(classes):
    """Real samples first, then as many that are not: one forward tells both."""
    model, x = two_layers(classes), torch.randn(8, 5).double()
    real = torch.arange(8) < 4
    y, loss = (real.long(), "cross_entropy") if classes == 2 else (real.double().unsqueeze(1), "mse")
    net = kept.compile(model, "local_loss(goodness='squares', threshold=0.3)", example_inputs=(x,), loss=loss)
    net.backward(x, y)
    z = np.tanh(numpy(model[0](x)))
    sign = np.where(real.numpy(), 1.0, -1.0)[:, None]
    goodness = (z**2).mean(1, keepdims=True)
    slope = -sign / (1 + np.exp(-sign * (0.3 - goodness)))
    e = (1 - z**2) * slope * 2 * z / 7
    assert numpy(model[0].weight.grad) == pytest.approx(e.T @ numpy(x) / 8, **BOUND)
    out = model(x).detach().requires_grad_()
    (functional.cross_entropy if classes == 2 else functional.mse_loss)(out, y).backward()
    assert numpy(model[2].weight.grad) == pytest.approx(numpy(out.grad).T @ z, **BOUND)


def test_refusals():
    with pytest.raises(altprop.RuleError, match=r"write local_loss\(beta=0, head=\"fixed\"\)"):
        altprop.rules.get("local_loss(head='fixed')")
    with pytest.raises(altprop.RuleError, match='goodness is "squares"'):
        altprop.rules.get("local_loss(goodness='cubes')")
    with pytest.raises(altprop.RuleError, match="have the model end in one number or two classes"):
        kept.compile(two_layers(3), "local_loss(goodness='squares')", example_inputs=(torch.randn(2, 5).double(),))
