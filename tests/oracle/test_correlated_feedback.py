"""Feedback that learns from correlations, `ebd` and `pfa`, beside NumPy."""

import kept
import numpy as np
import pytest
import torch
from torch import nn

import altprop

pytestmark = pytest.mark.third

BOUND = {"abs": 1e-10}


def numpy(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().numpy().copy()


def three_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 5, generator=generator).double(), torch.randn(8, 3, generator=generator).double()


def compiled(rule: str, **options: object) -> altprop.LocalNet:
    example = (batch()[0][:2],)
    return kept.compile(three_layers(), rule=rule, **{"loss": "mse", "example_inputs": example, **options})


def forward(net: altprop.LocalNet, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    w = [(numpy(net.model[place].weight), numpy(net.model[place].bias)) for place in (0, 2, 4)]
    first = np.tanh(x @ w[0][0].T + w[0][1])
    second = np.tanh(first @ w[1][0].T + w[1][1])
    return first, second, second @ w[2][0].T + w[2][1]


def test_broadcast_errors_go_by_running_correlations():
    net, (x, y) = compiled("ebd(memory=0.8)", optimizer=altprop.optim.AdamW(lr=0.01)), batch()
    for _ in range(2):
        before = {name: numpy(value) for name, value in net.feedback.items()}
        first, second, out = forward(net, numpy(x))
        e = 2 * (out - numpy(y)) / 3
        net.step(x, y)
        for name, z in (("4->0", first), ("4->2", second)):
            expected = 0.8 * before[name] + 0.2 / 8 * e.T @ z
            assert numpy(net.feedback[name]) == pytest.approx(expected, **BOUND)
    before = {name: numpy(value) for name, value in net.feedback.items()}
    first, _, out = forward(net, numpy(x))
    net.backward(x, y)
    e = 2 * (out - numpy(y)) / 3
    e_first = (1 - first**2) * (e @ (0.8 * before["4->0"] + 0.2 / 8 * e.T @ first))  # with the present batch
    assert numpy(net.model[0].weight.grad) == pytest.approx(e_first.T @ numpy(x) / 8, **BOUND)


def test_product_feedback_by_hand():
    net, (x, y) = compiled("pfa(expansion=3, weight_decay=0.0)"), batch()
    net.backward(x, y)
    first, second, out = forward(net, numpy(x))
    b = {place: numpy(net.feedback[f"{place}:fixed"]) for place in (0, 2)}
    r = {place: numpy(net.feedback[f"{place}:learned"]) for place in (0, 2)}
    assert [matrix.shape for matrix in (b[2], r[2], b[0], r[0])] == [(3, 9), (9, 6), (6, 18), (18, 7)]
    e_out = 2 * (out - numpy(y)) / 3
    e_second = (1 - second**2) * (e_out @ b[2] @ r[2])
    e_first = (1 - first**2) * (e_second @ b[0] @ r[0])
    for place, e, below in ((0, e_first, numpy(x)), (2, e_second, first), (4, e_out, second)):
        assert numpy(net.model[place].weight.grad) == pytest.approx(e.T @ below / 8, **BOUND)
    for place, e, z in ((0, e_second, first), (2, e_out, second)):
        assert numpy(net.feedback[f"{place}:learned"].grad) == pytest.approx((e @ b[place]).T @ z / 8, **BOUND)


def test_what_is_seen_through_the_fixed_matrix_comes_to_be_the_learned_one():
    """`B' W - R` shrinks by `1 - lr lambda` a step."""
    net, (x, y) = compiled("pfa(weight_decay=0.5)", optimizer=altprop.optim.SGD(lr=0.1)), batch()

    def apart(place: int) -> np.ndarray:
        above = numpy(net.model[place + 2].weight)
        return numpy(net.feedback[f"{place}:fixed"]).T @ above - numpy(net.feedback[f"{place}:learned"])

    before = [apart(place) for place in (0, 2)]
    for _ in range(3):
        net.step(x, y)
    for place, was in zip((0, 2), before, strict=True):
        assert apart(place) == pytest.approx(was * (1 - 0.05) ** 3, abs=1e-12)


def test_refusals():
    with pytest.raises(altprop.RuleError, match="memory=1"):
        altprop.rules.get("ebd(memory=1)")
    with pytest.raises(altprop.RuleError, match="expansion"):
        altprop.rules.get("pfa(expansion=0)")
