"""Optimizers inside the program: those of torch, operator by operator."""

import copy
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from torch import nn
from zoo_small import ConvNet, mlp

import altprop

pytestmark = pytest.mark.third

STEPS = 5
Pair = tuple[Callable[..., altprop.optim.Optimizer], Callable[..., torch.optim.Optimizer], dict[str, Any]]
SETTINGS: dict[str, Pair] = {
    "sgd": (altprop.optim.SGD, torch.optim.SGD, {"lr": 0.1}),
    "sgd_decay": (altprop.optim.SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.03}),
    "momentum": (altprop.optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "momentum_decay": (altprop.optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01}),
    "nesterov": (
        altprop.optim.SGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (altprop.optim.Adam, torch.optim.Adam, {"lr": 0.01}),
    "adam_decay": (
        altprop.optim.Adam,
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamw": (altprop.optim.AdamW, torch.optim.AdamW, {"lr": 0.01}),
    "adamw_decay": (altprop.optim.AdamW, torch.optim.AdamW, {"lr": 0.01, "betas": (0.7, 0.9), "weight_decay": 0.2}),
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def make_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return mlp(nn.Tanh).to(dtype)


def batch(index: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(4, 7, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(3, (4,), generator=generator)


def run_both(name: str, dtype: torch.dtype, rule: str, fused: bool) -> tuple[altprop.LocalNet, altprop.LocalNet]:
    """Five steps inside the program, and five of torch on the gradients of `net.backward`."""
    inside_kind, outside_kind, options = SETTINGS[name]
    example = (batch(0, dtype)[0],)
    inside = kept.compile(
        make_model(dtype), rule, example_inputs=example, optimizer=inside_kind(**options, fused=fused)
    )
    outside = kept.compile(make_model(dtype), rule, example_inputs=example)
    parameters = [p for p in outside.parameters() if p.requires_grad]
    optimizer = outside_kind(parameters, **options, foreach=False, fused=False)
    for index in range(STEPS):
        x, y = batch(index, dtype)
        loss = inside.step(x, y)
        optimizer.zero_grad()
        assert torch.allclose(loss, outside.backward(x, y), atol=0 if not fused else 1e-5)
        optimizer.step()
    return inside, outside


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_unfused_is_torch_bit_by_bit(name: str, dtype: str) -> None:
    inside, outside = run_both(name, DTYPES[dtype], "dfa", fused=False)
    for key, parameter in inside.model.named_parameters():
        assert torch.equal(parameter, outside.model.get_parameter(key)), key
    start = dict(make_model(DTYPES[dtype]).named_parameters())
    assert all(not torch.equal(p, start[key]) for key, p in inside.model.named_parameters())


@pytest.mark.parametrize("name", SETTINGS)
def test_fused_is_torch_but_for_rounding(name: str) -> None:
    inside, outside = run_both(name, torch.float32, "dfa", fused=True)
    for key, parameter in inside.model.named_parameters():
        assert torch.allclose(parameter, outside.model.get_parameter(key), rtol=0, atol=1e-6), key


@pytest.mark.parametrize("name", ["momentum_decay", "adamw"])
def test_learned_feedback_moves_like_parameters(name: str) -> None:
    inside, outside = run_both(name, torch.float64, "reclra", fused=False)
    assert len(inside.feedback) == 2
    for key, matrix in inside.feedback.items():
        assert torch.equal(matrix, outside.feedback[key]), key


@pytest.mark.parametrize("kind", [altprop.optim.SGD, altprop.optim.Adam, altprop.optim.AdamW])
def test_feedback_has_a_rate_and_a_decay_of_its_own(kind: Callable[..., altprop.optim.Optimizer]) -> None:
    """As `param_groups` gives them to torch."""
    dtype = torch.float64
    options: dict[str, Any] = {"momentum": 0.9} if kind is altprop.optim.SGD else {}
    optimizer = kind(lr=0.05, feedback_lr=0.01, weight_decay=0.1, feedback_weight_decay=0.3, fused=False, **options)
    example = (batch(0, dtype)[0],)
    inside = kept.compile(make_model(dtype), "reclra", example_inputs=example, optimizer=optimizer)
    outside = kept.compile(make_model(dtype), "reclra", example_inputs=example)
    groups = outside.param_groups(lr=0.05, feedback_lr=0.01, feedback_weight_decay=0.3)
    torch_kind = getattr(torch.optim, kind.__name__)
    torch_optimizer = torch_kind(groups, lr=1.0, weight_decay=0.1, foreach=False, **options)
    for index in range(STEPS):
        inside.step(*batch(index, dtype))
        torch_optimizer.zero_grad()
        outside.backward(*batch(index, dtype))
        torch_optimizer.step()
    for one, other in zip(inside.parameters(), outside.parameters(), strict=True):
        assert torch.equal(one, other)


def test_fixed_feedback_does_not_decay() -> None:
    dtype = torch.float64
    optimizer = altprop.optim.AdamW(lr=0.1, weight_decay=0.5, feedback_weight_decay=0.5)
    net = kept.compile(make_model(dtype), "dfa", example_inputs=(batch(0, dtype)[0],), optimizer=optimizer)
    before = copy.deepcopy(dict(net.feedback.items()))
    net.step(*batch(0, dtype))
    assert before
    for name, matrix in net.feedback.items():
        assert torch.equal(matrix, before[name])


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_rate_that_changes(name: str) -> None:
    """Schedules set `lr` between steps; bias corrections count on."""
    dtype = torch.float64
    inside_kind, outside_kind, options = SETTINGS[name]
    example = (batch(0, dtype)[0],)
    optimizer = inside_kind(**options, fused=False)
    inside = kept.compile(make_model(dtype), "dfa", example_inputs=example, optimizer=optimizer)
    outside = kept.compile(make_model(dtype), "dfa", example_inputs=example)
    twin = outside_kind(outside.model.parameters(), **options, foreach=False)
    for index, rate in enumerate((0.1, 0.03, 0.2, 0.0, 0.05)):
        optimizer.lr = twin.param_groups[0]["lr"] = rate
        inside.step(*batch(index, dtype))
        twin.zero_grad()
        outside.backward(*batch(index, dtype))
        twin.step()
    for one, other in zip(inside.model.parameters(), outside.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["momentum", "adam_decay"])
def test_frozen_parameters_get_no_state(name: str) -> None:
    inside_kind, _, options = SETTINGS[name]
    model = make_model(torch.float32)
    model.get_parameter("2.weight").requires_grad_(False)
    net = kept.compile(model, "dfa", example_inputs=(batch(0, torch.float32)[0],), optimizer=inside_kind(**options))
    before = model.get_parameter("2.weight").clone()
    net.step(*batch(0, torch.float32))
    assert torch.equal(model.get_parameter("2.weight"), before)
    assert not [key for key in net.state_dict() if key.startswith("state.") and "2/weight" in key]


@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_convolutions_and_norms(name: str) -> None:
    """State has the memory format of its parameter, and one-dimensional parameters move too."""
    inside_kind, outside_kind, options = SETTINGS[name]

    def make() -> nn.Module:
        torch.manual_seed(0)
        return ConvNet().double().to(memory_format=torch.channels_last)

    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    y = torch.randint(3, (4,))
    inside = kept.compile(make(), "dfa", example_inputs=(x,), optimizer=inside_kind(**options, fused=False))
    outside = kept.compile(make(), "dfa", example_inputs=(x,))
    optimizer = outside_kind(outside.model.parameters(), **options, foreach=False)
    for seed in range(3):
        torch.manual_seed(seed)
        inside.step(x, y)
        torch.manual_seed(seed)
        optimizer.zero_grad()
        outside.backward(x, y)
        optimizer.step()
    for one, other in zip(inside.model.parameters(), outside.model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
