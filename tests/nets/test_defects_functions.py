"""Functions with a backward in Python, in every spelling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import CompileError


class Rev(torch.autograd.Function):
    """Turns the gradient over."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


class Split(torch.autograd.Function):
    """The same in torch's newer form."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


rev, split = Rev.apply, Split.apply
SPELLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bound before": rev,
    "in two parts, bound before": split,
    "by the class": lambda x: Rev.apply(x),
    "inside a transform": lambda x: torch.func.vmap(Split.apply)(x),
}


class Applies(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_defect_03_a_backward_in_python_is_refused_in_every_spelling(spelling: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4), Applies(SPELLINGS[spelling]), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(CompileError, match=r"the custom autograd.Function .*(Rev|Split) cannot be captured"):
        altprop.compile(model, rule="bp", example_inputs=(torch.randn(4, 6),))
    x = torch.ones(2, requires_grad=True)
    rev(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0] == -1, "torch is as it was"
