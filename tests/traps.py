"""What the tests of traps share."""

import copy
import functools
from typing import Any

import kept
import torch
from torch import nn
from torch.nn import functional as F
from zoo import ZOO
from zoo_cases import floats, integers

import altprop

RULES = ("fa", "dfa", "reclra")


CHAINED = "reclra(feedback_learning='transpose')"


Gradients = dict[str, torch.Tensor]


def compiled(model: nn.Module, rule: str, *inputs: torch.Tensor, **options: Any) -> altprop.LocalNet:
    return kept.compile(model, rule, example_inputs=inputs, **options)


@functools.cache
def _kept(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    case = ZOO[name]
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    return compiled(case.model(), rule, *inputs, **options)


def net_of(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    """A fresh net of a model of the zoo; compilations are kept, copies are cheap."""
    return copy.deepcopy(_kept(name, rule, **options))


def collect(net: altprop.LocalNet) -> Gradients:
    """Copies every gradient of the model and clears it."""
    found = {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}
    net.zero_grad(set_to_none=True)
    return found


def after_backward(net: altprop.LocalNet, x: Any, target: Any) -> Gradients:
    net.backward(x, target)
    return collect(net)


def same(one: Gradients, other: Gradients) -> bool:
    assert set(one) == set(other)
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-10) for name in one)


def local_products(h: torch.Tensor, layer: nn.Module, e: torch.Tensor) -> list[torch.Tensor]:
    """Products of one layer's parameters with an error at its pre-activation."""
    return list(torch.autograd.grad(h, list(layer.parameters()), e))


def softmax_error(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (output.softmax(-1) - F.one_hot(labels, output.shape[-1])).detach()


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return floats(4, 7), integers(3, 4)


def double(case: str) -> nn.Module:
    return ZOO[case].model()
