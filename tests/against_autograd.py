"""A net's step beside autograd's, in float64, from the same random state: what all tests of the zoo share."""

import copy
import functools
from typing import Any
from unittest import mock

import kept
import torch
from program_texts import assert_programs_parse_back
from torch import nn
from versions import TORCH
from zoo_cases import BATCH, Case

import altprop

BOUND = 1e-10


SEED = 5


def autograd(case: Case, model: nn.Module, batch: int) -> tuple[torch.Tensor, Any]:
    """Fills `.grad` by autograd; returns the loss and the output."""
    torch.manual_seed(SEED)
    output = case.call(model, case.inputs(batch))
    loss = case.loss_of(output, case.target(batch))
    loss.backward()
    return loss, output


def by_bridge(case: Case, net: altprop.LocalNet, batch: int) -> tuple[torch.Tensor, Any]:
    torch.manual_seed(SEED)
    output = case.call(net, case.inputs(batch))
    loss = case.loss_of(output, case.target(batch))
    loss.backward()
    return loss, output


def by_program(case: Case, net: altprop.LocalNet, batch: int) -> torch.Tensor:
    torch.manual_seed(SEED)
    inputs = case.inputs(batch)
    return net.backward(inputs, case.target(batch))


def gradients(model: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def far(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest element where that is above one."""
    scale = max(1.0, float(expected.abs().max()))
    return float((actual - expected).abs().max()) / scale


def assert_same_gradients(model: nn.Module, reference: nn.Module, bound: float = BOUND) -> None:
    expected = gradients(reference)
    wrong = {}
    for name, actual in gradients(model).items():
        wanted = expected[name]
        if wanted is None:
            assert actual is None, f"the reference does not move {name}"
            continue
        distance = float("inf") if actual is None else far(actual, wanted)
        if not distance <= bound:
            wrong[name] = distance
    assert not wrong


def assert_same_buffers(model: nn.Module, reference: nn.Module) -> None:
    expected = dict(reference.named_buffers())
    for name, actual in model.named_buffers():
        assert actual.dtype == expected[name].dtype
        assert far(actual.double(), expected[name].double()) <= BOUND, name


def leaves(output: Any) -> list[torch.Tensor]:
    found = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


# torch's own GRU cell is one fused operator; taken apart it rounds once otherwise (see docs/architecture.md).
# T5 and Llama norm in float32 whatever their parameters are: their gradients are known to that precision only.
NORMS_IN_FLOAT32 = {"t5": 1e-7, "llama": 1e-7}


ROUNDS_OTHERWISE = {"cells": 1e-15}
if TORCH < (2, 11):  # its attention rounds by how its inputs lie in memory
    ROUNDS_OTHERWISE["rotary"] = 1e-15


def assert_same_output(actual: Any, expected: Any, within: float = 0.0) -> None:
    assert type(actual) is type(expected)
    pairs = list(zip(leaves(actual), leaves(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert torch.equal(one, other) or far(one.detach(), other.detach()) <= within


def assert_same_evaluation(case: Case, net: altprop.LocalNet) -> None:
    net.eval()
    with torch.no_grad():
        expected = case.call(copy.deepcopy(net.model), case.inputs(3))
    assert_same_output(case.call(net, case.inputs(3)), expected)


def check_against_autograd(case: Case) -> None:
    """One step by `bp` equals autograd, forward and backward, in three sizes of the batch and in evaluation."""
    net = kept.net(case, "bp")
    model = net.model
    assert_programs_parse_back(net)
    within, bound = ROUNDS_OTHERWISE.get(case.name, 0.0), NORMS_IN_FLOAT32.get(case.name, BOUND)
    # The batch of the capture, a larger one, and a short last one.
    for batch in (BATCH, BATCH + 3, 2):
        reference = copy.deepcopy(model)
        bridged = copy.deepcopy(net)
        loss, output = autograd(case, reference, batch)
        net.zero_grad(set_to_none=True)

        actual = by_program(case, net, batch)
        assert far(actual, loss.detach()) <= BOUND
        assert_same_gradients(model, reference, bound)
        assert_same_buffers(model, reference)

        bridged_loss, bridged_output = by_bridge(case, bridged, batch)
        assert_same_output(bridged_output, output, within)
        assert_same_output(bridged_loss, loss, within)
        assert_same_gradients(bridged.model, reference, bound)
        assert_same_buffers(bridged.model, reference)
    assert_same_evaluation(case, net)


def forbidden(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("autograd ran")


@functools.cache
def moved_by_autograd(case: Case) -> frozenset[str]:
    """Parameters whose gradient is more than rounding; a bias before a norm has none by nature."""
    model = case.model()
    autograd(case, model, BATCH)
    grads = {name: grad for name, grad in gradients(model).items() if grad is not None}
    return frozenset(name for name, grad in grads.items() if float(grad.abs().max()) > 1e-12)


def check_every_parameter_moves(case: Case, rule: str) -> None:
    """One step by a rule, with autograd forbidden, moves every parameter that autograd would move."""
    net = kept.net(case, rule, optimizer=altprop.optim.SGD(lr=0.01))
    model = net.model
    # With a callable loss the program is made when the target's form is known, at the first call.
    net.backward(case.inputs(BATCH), case.target(BATCH))
    assert_programs_parse_back(net)
    net.zero_grad(set_to_none=True)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    patched = mock.patch.multiple(torch.autograd, backward=forbidden, grad=forbidden)
    with patched, torch.no_grad(), mock.patch.object(torch.Tensor, "backward", forbidden):
        loss = net.step(case.inputs(BATCH), case.target(BATCH))
        net.backward(case.inputs(BATCH), case.target(BATCH))
    assert torch.isfinite(loss)
    grads = gradients(model)
    wanted = moved_by_autograd(case)
    assert wanted
    still = {key for key in wanted if torch.equal(before[key], dict(model.named_parameters())[key])}
    assert not still
    flat = {key for key in wanted if (grad := grads[key]) is None or not float(grad.abs().max()) > 1e-14}
    assert not flat
