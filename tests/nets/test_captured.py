"""`altprop.capture`: one capture, any number of compilations."""

import copy

import pytest
import torch
from torch import nn

import altprop
from altprop.compiler import pipeline


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()


X = torch.linspace(-1, 1, 28, dtype=torch.float64).reshape(4, 7)
Y = torch.tensor([0, 1, 2, 0])


@pytest.fixture(scope="module")
def captured() -> altprop.Captured:
    return altprop.capture(build(), X)


@pytest.fixture
def no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("captured again")

    monkeypatch.setattr(pipeline, "capture", fail)


@pytest.mark.usefixtures("no_capture")
@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
def test_compiles_without_capturing_again(captured: altprop.Captured, rule: str) -> None:
    net = altprop.compile(captured, rule)
    assert net.model is captured.model
    net.backward(X[:3], Y[:3])  # another batch
    assert all(parameter.grad is not None for parameter in net.model.parameters())
    net.model.zero_grad()


def test_moves_as_a_net_that_captures_itself(captured: altprop.Captured) -> None:
    one = altprop.compile(captured, "dfa")
    other = altprop.compile(build(), "dfa", example_inputs=(X,))
    gradients = []
    for net in (one, other):
        net.model.zero_grad()
        net.backward(X, Y)
        gradients.append([parameter.grad for parameter in net.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.usefixtures("no_capture")
def test_examine_takes_one(captured: altprop.Captured) -> None:
    assert altprop.examine(captured).ok


def test_prints_what_it_is(captured: altprop.Captured) -> None:
    assert str(captured).startswith("captured Sequential: float64(N, 7) -> float64(N, 3), any batch")
    assert "6 trainable parameters, 3 buffers, 3 of them renewed" in str(captured)


def test_is_made_in_training_mode_and_leaves_the_model_as_it_was() -> None:
    model = build().eval()
    captured = altprop.capture(model, X)
    assert captured.graph.buffer_updates
    assert not any(module.training for module in model.modules())
    assert altprop.compile(captured, "dfa").model is model


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m[0].weight.requires_grad_(False), "parameter 0.weight is frozen"),
        (lambda m: m.__setitem__(3, nn.Linear(6, 4).double()), r"parameter 3.weight is trainable, float64\(4, 6\)"),
        (lambda m: m[1].eval(), 'module "1" is BatchNorm1d in evaluation mode'),
        (lambda m: m.append(nn.Tanh()), 'module "4" is new'),
        (lambda m: m.float(), "parameter 0.weight is trainable, float32"),
        (lambda m: m.__setitem__(2, nn.ReLU()), 'module "2" is ReLU'),
    ],
)
def test_a_model_that_has_changed_is_refused_by_name(change, named: str) -> None:
    model = build()
    captured = altprop.capture(model, X)
    captured.check()
    change(model)
    with pytest.raises(altprop.CaptureError, match=named):
        altprop.compile(captured, "dfa")


@pytest.mark.usefixtures("no_capture")
def test_other_example_inputs_are_refused(captured: altprop.Captured) -> None:
    with pytest.raises(altprop.CompileError, match="example inputs already"):
        altprop.compile(captured, "dfa", example_inputs=(X,))


def test_only_modules_are_captured() -> None:
    with pytest.raises(altprop.CaptureError, match=r"takes an nn\.Module, not function"):
        altprop.capture(lambda x: x, X)


def test_a_copy_of_a_net_and_one_of_a_file_capture_for_themselves(captured: altprop.Captured) -> None:
    import pickle

    net = altprop.compile(captured, "dfa")
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        loss = net.backward(X, Y)
        assert torch.equal(other.backward(X, Y), loss)
