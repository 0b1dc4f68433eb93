"""Models, inputs and losses that no program can take: one sentence, before any work."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import CompileError


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


X, Y = torch.randn(4, 8), torch.tensor([0, 1, 2, 1])
ODD: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "sparse": (X.to_sparse, r"0 is sparse \(sparse_coo\): make it dense"),
    "nested": (lambda: torch.nested.nested_tensor([X, X]), "0 is a nested tensor: pad it"),
    "meta": (lambda: X.to("meta"), "0 is on the meta device, where there are no numbers"),
}


@pytest.fixture(scope="module")
def compiled() -> altprop.LocalNet:
    return altprop.compile(mlp(), "dfa", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))


@pytest.fixture
def net(compiled: altprop.LocalNet) -> altprop.LocalNet:
    return copy.deepcopy(compiled)


@pytest.mark.filterwarnings("ignore:.*prototype stage.*:UserWarning")
@pytest.mark.parametrize("kind", ODD)
def test_defect_27_odd_tensors_are_refused(kind: str, net: altprop.LocalNet) -> None:
    make, message = ODD[kind]
    odd = make()
    for call in (
        lambda: altprop.compile(mlp(), "dfa", example_inputs=(odd,)),
        lambda: altprop.capture(mlp(), odd),
        lambda: net(odd),
        lambda: net.step(odd, Y),
    ):
        with pytest.raises(CompileError, match=f"input {message}"):
            call()
    with pytest.raises(CompileError, match=f"target {message}"):
        net.step(X, odd)
    assert f"error: input {message[:9]}" in str(altprop.examine(mlp(), (odd,)))


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.filterwarnings("ignore:.*(torch.jit|Lazy)", "ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lazy, r"0\.weight has no shape yet: run a lazy model once"),
        (lambda: torch.jit.script(mlp()), r"a torch\.jit script, whose forward cannot be captured"),
        (lambda: mlp().to("meta"), r"0\.weight is on the meta device"),
    ],
)
def test_defect_27_models_that_are_none_yet_are_refused(make: Callable[[], Any], message: str) -> None:
    model = make()
    for call in (lambda: altprop.compile(model, "dfa"), lambda: altprop.capture(model, X)):
        with pytest.raises(CompileError, match=message):
            call()
    assert "error:" in str(altprop.examine(model, (X,)))


def test_defect_27_a_class_is_no_loss() -> None:
    with pytest.raises(CompileError, match=r"is a class: give an object of it, CrossEntropyLoss\(\)"):
        altprop.compile(mlp(), "dfa", loss=nn.CrossEntropyLoss)


def test_defect_27_feedback_changes_its_type_with_the_model(net: altprop.LocalNet) -> None:
    whole = copy.deepcopy(net)
    net.model.double()
    with pytest.raises(CompileError, match=r"the model is float64, and its feedback float32: convert the net"):
        net.step(X.double(), Y)
    whole.double()
    assert whole.step(X.double(), Y).dtype == torch.float64


def test_defect_27_products_of_two_types_are_refused(net: altprop.LocalNet) -> None:
    with pytest.raises(CompileError, match=r"the model multiplies float32 and float64.*give inputs of the type"):
        net.step(X.double(), Y)
