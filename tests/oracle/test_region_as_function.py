"""Rules that run a region's own operators at other weights, beside textbooks in NumPy."""

import dataclasses

import kept
import numpy as np
import pytest
import torch
from torch import nn

import altprop
from altprop.ir.plan import Feedback, WiringPlan

pytestmark = pytest.mark.third

BOUND = {"abs": 1e-10}


def mlp(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(9, 7, bias=bias), nn.Tanh(), nn.Linear(7, 5, bias=bias), nn.Tanh(), nn.Linear(5, 3, bias=bias)
    ).double()


def batch(samples: int = 40, inputs: int = 9, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, inputs, generator=generator).double()
    return x, torch.randn(samples, outputs, generator=generator).double()


def compiled(model: nn.Module, rule: str, **options: object) -> altprop.LocalNet:
    example = (torch.zeros(2, *batch()[0].shape[1:]).double(),)
    return kept.compile(model, rule=rule, **{"loss": "mse", "example_inputs": example, **options})


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def forward(model: nn.Sequential, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Input with ones, pre-activation and activity of each layer."""
    found, value = [], x
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for index, layer in enumerate(layers):
        ones = [np.ones((len(value), 1))] if layer.bias is not None else []
        a = np.hstack([value, *ones])
        w = np.hstack([numpy(layer.weight), *([numpy(layer.bias)[:, None]] if layer.bias is not None else [])])
        h = a @ w.T
        value = np.tanh(h) if index + 1 < len(layers) else h
        found.append((a, h, value))
    return found


def gradient_rows(layer: nn.Linear) -> np.ndarray:
    assert layer.weight.grad is not None
    parts = [numpy(layer.weight.grad)]
    if layer.bias is not None:
        assert layer.bias.grad is not None
        parts.append(numpy(layer.bias.grad)[:, None])
    return np.hstack(parts)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lam", [0.7, 0.0])
def test_least_squares_is_the_ridge_solution(bias, lam):
    model = mlp(bias)
    net = compiled(model, f"ls(lam={lam}, rate=0.5)")
    x, y = batch()
    net.backward(x, y)
    values = forward(model, numpy(x))
    e_output = 2 * (values[2][2] - numpy(y)) / 3  # mse: a mean over samples and units, of which samples are summed
    places = {0: 0, 1: 2, 2: 4}
    for index, place in places.items():
        a, _, _ = values[index]
        d = e_output if index == 2 else e_output @ numpy(net.feedback[f"4->{place}"])
        if lam:
            expected = np.linalg.solve(a.T @ a + lam * np.eye(a.shape[1]), a.T @ (0.5 * d)).T
        else:
            expected = np.linalg.lstsq(a, 0.5 * d, rcond=None)[0].T
        assert gradient_rows(model[place]) == pytest.approx(expected, **BOUND)


def test_least_squares_of_a_convolution_is_that_of_its_patches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)).double()
    x, y = torch.randn(30, 2, 5, 5).double(), batch(30)[1]
    net = kept.compile(model, rule="ls(lam=0.3, rate=0.1)", loss="mse", example_inputs=(x[:2],))
    net.backward(x, y)
    patches = nn.functional.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18)
    a = np.hstack([numpy(patches), np.ones((len(patches), 1))])
    e = numpy(2 * (model(x) - y) / 3)
    d = np.einsum("no,ochw->nchw", e, numpy(net.feedback["3->0"]))
    rows = d.transpose(0, 2, 3, 1).reshape(-1, 4)
    expected = np.linalg.solve(a.T @ a + 0.3 * np.eye(19), a.T @ (0.1 * rows)).T
    made = np.hstack([numpy(model[0].weight.grad).reshape(4, 18), numpy(model[0].bias.grad)[:, None]])
    assert made == pytest.approx(expected, **BOUND)


def test_at_rate_one_sgd_lands_on_the_solution():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 3)).double()
    net = compiled(model, "ls(lam=0, rate=1.5)", optimizer=altprop.optim.SGD(lr=1.0))  # mse's gradient is 2/3 of z - t
    x, y = batch()
    net.step(x, y)
    a = np.hstack([numpy(x), np.ones((40, 1))])
    expected = np.linalg.lstsq(a, numpy(y), rcond=None)[0].T
    assert np.hstack([numpy(model[0].weight), numpy(model[0].bias)[:, None]]) == pytest.approx(expected, **BOUND)


@pytest.mark.parametrize(("samples", "sizes"), [(8, (6, 4)), (8, (4, 6))])
@pytest.mark.parametrize("lam", [0.4, 0.0])
def test_pinv_is_the_shortest_step(samples, sizes, lam):
    """Both where the source has fewer units than what it reads, and more."""
    torch.manual_seed(0)
    width, above = sizes
    model = nn.Sequential(nn.Linear(9, width), nn.Tanh(), nn.Linear(width, above)).double()
    x, y = batch(samples, 9, above)
    plan = compiled(model, "bp").plan
    pinv = Feedback("pinv", {"lam": lam})
    plan = plan_with(plan, pinv)
    net = compiled(model, "bp", plan=plan)
    net.backward(x, y)
    (a, _, z), (_, _, out) = forward(model, numpy(x))
    e, w = 2 * (out - numpy(y)) / above, numpy(model[2].weight)
    shortest = np.linalg.lstsq(w, e.T, rcond=None)[0].T
    d = e @ w @ np.linalg.inv(w.T @ w + lam * np.eye(width)) if lam else shortest
    expected = ((1 - z**2) * d).T @ a / samples
    assert gradient_rows(model[0]) == pytest.approx(expected, **BOUND)


def plan_with(plan: WiringPlan, feedback: Feedback) -> WiringPlan:
    connections = tuple(dataclasses.replace(c, feedback=feedback) for c in plan.connections)
    return dataclasses.replace(plan, connections=connections)


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("other", ["reclra(beta=0.3)", "dfa"])
def test_inner_steps_by_hand(other, k):
    model = mlp()
    net = compiled(model, f'inner(rule="{other}", k={k}, rate=0.2)')
    x, y = batch()
    net.backward(x, y)
    values = forward(model, numpy(x))
    e_output = 2 * (values[2][2] - numpy(y)) / 3
    for index, place in ((0, 0), (1, 2), (2, 4)):
        a, h, z = values[index]
        layer = model[place]
        theta = start = np.hstack([numpy(layer.weight), numpy(layer.bias)[:, None]])
        if index == 2:
            e, phi = e_output, lambda value: value
        else:
            d, phi = e_output @ numpy(net.feedback[f"4->{place}"]), np.tanh
            e = z - np.tanh(h - 0.3 * d) if "reclra" in other else (1 - z**2) * d
        for _ in range(k):
            now = phi(a @ theta.T) - z + e
            theta = theta - 0.2 * now.T @ a / len(a)
        assert gradient_rows(layer) == pytest.approx(start - theta, **BOUND)


def test_one_inner_step_is_the_other_rules():
    one, other = mlp(), mlp()
    x, y = torch.randn(12, 9).double(), torch.randint(3, (12,))
    same = {"example_inputs": (x[:2],), "loss": "cross_entropy", "seed": 4}
    kept.compile(one, rule='inner(rule="reclra", k=1, rate=0.3)', **same).backward(x, y)
    kept.compile(other, rule="reclra", **same).backward(x, y)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p.grad, 0.3 * q.grad, atol=1e-12)


@pytest.mark.parametrize("k", [3, 12])
def test_inner_steps_to_a_target_by_hand(k):
    model, (x, y) = mlp(), batch()
    compiled(model, f"steps_x(k={k}, rate=0.2, step=0.7)").backward(x, y)
    (a0, _, z0), (a1, _, z1), (_, _, out) = forward(model, numpy(x))
    e_output = 2 * (out - numpy(y)) / 3
    last = [numpy(model[place].weight) for place in (2, 4)]
    bias = numpy(model[2].bias)

    target, moved = out - 0.7 * e_output, z1
    for _ in range(k):
        moved = moved - 0.2 * (moved @ last[1].T + numpy(model[4].bias) - target) @ last[1]
    e1, target, moved = z1 - moved, moved, z0
    for _ in range(k):
        made = np.tanh(moved @ last[0].T + bias)
        moved = moved - 0.2 * ((1 - made**2) * (made - target)) @ last[0]
    e0 = z0 - moved
    assert gradient_rows(model[2]) == pytest.approx(((1 - z1**2) * e1).T @ a1 / 40, **BOUND)
    assert gradient_rows(model[0]) == pytest.approx(((1 - z0**2) * e0).T @ a0 / 40, **BOUND)


def test_one_step_to_a_target_is_backpropagation():
    one, other = mlp(), mlp()
    x, y = batch()
    compiled(one, "steps_x(k=1, rate=1.0)").backward(x, y)
    nn.functional.mse_loss(other(x), y).backward()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-12)


def test_a_region_that_is_no_layer_is_refused_by_name():
    model = nn.Sequential(nn.Linear(9, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)).double()
    with pytest.raises(altprop.RuleError, match='ls: region "0" is more than one dense layer or convolution'):
        compiled(model, "ls")
    with pytest.raises(altprop.RuleError, match='"tp" sets no target that stays'):
        altprop.rules.get('inner(rule="tp")')


def test_filters_have_no_inverse_here():
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 3, 3), nn.Flatten(), nn.Linear(15, 3)).double()
    x = torch.randn(4, 2, 9).double()
    plan = plan_with(kept.compile(model, rule="bp", loss="mse", example_inputs=(x,)).plan, Feedback("pinv"))
    with pytest.raises(altprop.PlanError, match=r"a weight of the shape \(3, 3, 3\)"):
        kept.compile(model, rule="bp", loss="mse", example_inputs=(x,), plan=plan)
