"""Mistakes of existing systems, by number: the caller's property, and what is kept (16 and 17)."""

import copy
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from choose import one_each
from torch import nn
from traps_systems import OPTIMIZERS, RULES, batch, make_model, make_net
from zoo import ZOO
from zoo_large import gpt2, masked_words
from zoo_small import ConvNet

import altprop

pytestmark = pytest.mark.third


# 16: the caller's property


def hooks_of(model: nn.Module) -> list[Any]:
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = [hook for module in model.modules() for table in tables for hook in getattr(module, table).values()]
    return found + [hook for p in model.parameters() for hook in (p._backward_hooks or {}).values()]


def attributes_of(model: nn.Module) -> dict[str, set[str]]:
    return {name: set(module.__dict__) for name, module in model.named_modules()}


@pytest.mark.parametrize("rule", RULES)
def test_trap_16_compiling_leaves_no_trace(rule: str, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = ConvNet()
    x = torch.randn(4, 2, 8, 8)
    state, attributes = copy.deepcopy(model.state_dict()), attributes_of(model)
    parameters, modes = [id(p) for p in model.parameters()], [m.training for m in model.modules()]
    random_states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    net = altprop.compile(model, rule, example_inputs=(x,), optimizer=OPTIMIZERS["sgd"]())
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert random.getstate() == random_states[1]
    assert np.random.get_state()[1].tolist() == random_states[2]
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert attributes_of(model) == attributes
    assert [id(p) for p in model.parameters()] == parameters
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    net.step(x, torch.randint(3, (4,)))
    assert hooks_of(model) == []
    assert capfd.readouterr() == ("", "")


def test_trap_16_the_mode_and_the_inputs_stay() -> None:
    model = ConvNet().eval()
    x = torch.randn(4, 2, 8, 8)
    given = x.clone()
    net = altprop.compile(model, "dfa", example_inputs=(x,))
    assert not net.training
    assert not any(module.training for module in model.modules())
    net.train()
    net.backward(x, torch.randint(3, (4,)))
    assert torch.equal(x, given)


@pytest.mark.filterwarnings("ignore")
def test_trap_16_the_config_stays() -> None:
    model = gpt2("eager")
    config = model.config
    before = copy.deepcopy(config.to_dict())
    altprop.compile(model, "dfa", example_kwargs=masked_words(4))
    assert model.config is config
    assert config.to_dict() == before


@pytest.mark.parametrize("rule", ["fa", "dfa", "reclra"])
def test_trap_16_an_optimizer_made_at_once_sees_the_feedback(rule: str) -> None:
    net = make_net(make_model(), rule)
    assert len(list(net.feedback_parameters())) == 2
    assert {id(p) for p in net.feedback_parameters()} < {id(p) for p in net.parameters()}


# 17: "without backpropagation" that calls autograd


def forbidden(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("autograd ran")


@pytest.mark.parametrize("rule", RULES)
def test_trap_17_steps_run_without_autograd(rule: str) -> None:
    net = make_net(make_model(), rule)
    with (
        mock.patch.multiple(torch.autograd, backward=forbidden, grad=forbidden),
        mock.patch.object(torch.Tensor, "backward", forbidden),
        torch.no_grad(),
    ):
        assert torch.isfinite(net.step(*batch()))
        loss = net.backward(*batch())
    assert not loss.requires_grad
    assert all(p.grad is not None and p.grad.grad_fn is None for p in net.model.parameters())


def test_trap_17_programs_hold_no_graph() -> None:
    """With grad enabled around it, a step still records nothing."""
    net = make_net(make_model())
    with torch.enable_grad():
        loss = net.step(*batch())
    assert loss.grad_fn is None


def saved_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps from the forward, beside parameters and buffers; each memory counts once."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    assert output.requires_grad
    return sum(kept.values())


# rec-LRA keeps the pre-activation beside the activity, since its target starts from there.
@pytest.mark.parametrize(
    ("name", "rule"), one_each(["conv_bn_dropout", "resnet18", "encoder_layer"], ["dfa", "reclra"])
)
def test_trap_17_saved_activations(name: str, rule: str) -> None:
    bound = {"dfa": 1.0, "reclra": 1.5}[rule]
    case = ZOO[name]
    model = case.model()
    (x,) = case.inputs(8)
    net = altprop.compile(model, rule, example_inputs=(x,))
    plain = saved_bytes(model, lambda: model(x))
    assert plain > 0
    assert 0 < saved_bytes(net, lambda: net(x)) <= bound * plain
