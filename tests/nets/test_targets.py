"""Rules that send the target in the error's place: where it comes from, and what happens where it cannot be told."""

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.ir.loss import get_loss

X = torch.linspace(-1.0, 1.0, 42).reshape(6, 7)
LABELS = torch.tensor([0, 2, 1, 1, 2, 0])


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def hidden_update(net: altprop.LocalNet, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    net.zero_grad()
    net.backward(x, labels)
    gradient = net.model[0].weight.grad  # type: ignore[union-attr, index]
    assert isinstance(gradient, torch.Tensor)
    return gradient.clone()


def test_the_signal_is_the_target_and_nothing_else() -> None:
    net = kept.compile(make_model(), "drtp", example_inputs=(X,))
    first = hidden_update(net, X, LABELS)
    with torch.no_grad():
        net.model[2].weight.mul_(-3.0)  # type: ignore[union-attr, index, operator]
        net.model[2].bias.add_(1.0)  # type: ignore[union-attr, index, operator]
    assert torch.equal(hidden_update(net, X, LABELS), first), "the output error reaches the hidden region"
    assert not torch.equal(hidden_update(net, X, LABELS.roll(1)), first)


def test_explain_and_print_say_target() -> None:
    net = kept.compile(make_model(), "drtp", example_inputs=(X,))
    assert net.explain()["0.weight"].signal == "the target, not error of 2"
    assert "d = E[2->0] the target, not e[2]" in str(net.graph)


def test_classes_without_a_sample_are_no_target() -> None:
    loss = get_loss("cross_entropy")
    found = loss.teaching(torch.zeros(3, 4), torch.tensor([1, -100, 3]))
    assert found is not None
    assert found.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_targets_of_sequences_and_images() -> None:
    loss = get_loss("cross_entropy")
    places = torch.tensor([[0, 1], [2, 1]])
    sequence = loss.teaching(torch.zeros(2, 2, 3), places)
    image = loss.teaching(torch.zeros(2, 3, 1, 2), places.reshape(2, 1, 2))
    assert sequence is not None
    assert image is not None
    assert torch.equal(sequence.argmax(2), places)
    assert torch.equal(image.argmax(1).reshape(2, 2), places)
    assert float(sequence.sum()) == float(image.sum()) == 4.0


@pytest.mark.parametrize("scale", [1.0, 1024.0, 1e-3])
@pytest.mark.parametrize("sure", [1.0, 1e3])
def test_a_class_is_told_from_the_gradient(scale: float, sure: float) -> None:
    """Also under the factor of a gradient scaler, and where the softmax is so sure that the gradient is zero."""
    output = (sure * torch.eye(3)[LABELS] + 0.1 * torch.randn(6, 3)).requires_grad_()
    (scale * functional.cross_entropy(output, LABELS, reduction="sum")).backward()
    assert output.grad is not None
    found = get_loss("cross_entropy").recover_teaching(output.detach(), output.grad)
    assert found is not None
    assert torch.equal(found.argmax(1), LABELS)


def test_many_labels_are_told_from_the_gradient() -> None:
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    output = torch.tensor([[0.3, -0.2, 60.0], [-60.0, 0.4, -0.1]], requires_grad=True)
    functional.binary_cross_entropy_with_logits(output, target, reduction="sum").backward()
    assert output.grad is not None
    found = get_loss("bce_with_logits").recover_teaching(output.detach(), output.grad)
    assert found is not None
    assert torch.equal(found, target)


def test_a_loss_that_hides_its_target_is_refused_in_a_loop_of_ones_own() -> None:
    net = kept.compile(make_model(), "drtp", example_inputs=(X,), loss="l1")
    target = torch.zeros(6, 3)
    net.backward(X, target)
    with pytest.raises(altprop.CompileError, match=r"loss\.backward\(\) does not hand over.*net\.step"):
        net(X)


def test_a_target_of_another_form_is_refused() -> None:
    def far(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output.sum(1) - target.sum(1)).square().mean()

    net = kept.compile(make_model(), "drtp", example_inputs=(X,), loss=far)
    with pytest.raises(altprop.CompileError, match=r"the target of the loss far has neither the output's shape"):
        net.backward(X, torch.zeros(6, 2))


def test_only_outputs_have_a_target() -> None:
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(altprop.RuleError, match="2 is no output region, so it has no target to send"):
        altprop.compile(model, "drtp", plan="chain", example_inputs=(X,))
