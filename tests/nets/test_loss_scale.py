"""A loss that a loop multiplies: gradient scalers, `loss / k`, weights of several losses."""

import copy
import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.ir.loss import get_loss
from altprop.ir.program import LOSS_SCALE

pytestmark = pytest.mark.third

SCALES = (65536.0, 1 / 16, 10.0)


@dataclasses.dataclass(frozen=True)
class OwnSign(altprop.rules.Rule):
    """A user's rule, which says nothing of the loss's scale."""

    name: ClassVar[str] = "own_sign"

    def signal(self, local, incoming):
        return sum(c.project(torch.sign(c.error)) for c in incoming)


def batch(samples=8):
    torch.manual_seed(0)
    return torch.randn(samples, 20, dtype=torch.float64), torch.randint(10, (samples,))


def compiled(rule, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 14), nn.Tanh(), nn.Linear(14, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    return altprop.compile(model, rule, example_inputs=(batch()[0],), **options)


def gradients(net, loss):
    """Gradients that a loop gets, with the same noise every time."""
    net.zero_grad()
    count = net.noise.count
    loss(net(batch()[0])).backward()
    net.noise.count = count
    every = {**dict(net.model.named_parameters()), **dict(net.feedback.items())}
    return {name: p.grad.clone() for name, p in every.items() if p.grad is not None}


def assert_scaled(found, scale, usual):
    assert found.keys() == usual.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient / scale, usual[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "rule", ["reclra(largest=0.02)", "sdfa", "drtp", "local_loss", "wm", "kp(weight_decay=0.1)", "own_sign"]
)
def test_defect_09_updates_grow_as_the_loss_does(rule):
    net, y = compiled(rule), batch()[1]
    usual = gradients(net, lambda output: functional.cross_entropy(output, y))
    for scale in SCALES:
        assert_scaled(gradients(net, lambda output, s=scale: s * functional.cross_entropy(output, y)), scale, usual)


def test_defect_09_powers_of_two_change_no_bit():
    net, y = compiled("reclra"), batch()[1]
    usual = gradients(net, lambda output: functional.cross_entropy(output, y))
    scaled = gradients(net, lambda output: 2**16 * functional.cross_entropy(output, y))
    assert all(torch.equal(scaled[name] / 2**16, gradient) for name, gradient in usual.items())


def test_defect_09_accumulation_is_the_whole_batch():
    net = compiled("reclra")
    x, y = batch(16)
    functional.cross_entropy(net(x), y).backward()
    whole = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    for part, classes in zip(x.chunk(4), y.chunk(4), strict=True):
        (functional.cross_entropy(net(part), classes) / 4).backward()
    for parameter, gradient in zip(net.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_defect_09_a_loss_that_does_not_tell_warns_once():
    net, target = compiled("reclra", loss="mse"), torch.zeros(8, 10, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"the loss mse does not tell by what factor .* say loss_scale=1\.0"):
        functional.mse_loss(net(batch()[0]), target).backward()
    functional.mse_loss(net(batch()[0]), target).backward()  # a second warning is an error here


def test_defect_09_what_the_user_says_is_taken():
    target = torch.zeros(8, 10, dtype=torch.float64)
    usual = gradients(
        compiled("reclra", loss="mse", loss_scale=1.0), lambda output: functional.mse_loss(output, target)
    )
    said = iter([3.0, 0.5])
    net = compiled("reclra", loss="mse", loss_scale=lambda: next(said))
    for scale in (3.0, 0.5):
        found = gradients(net, lambda output, s=scale: s * functional.mse_loss(output, target))
        assert_scaled(found, scale, usual)


def test_defect_09_another_loss_than_the_compiled_one_is_said():
    net, y = compiled("reclra"), batch()[1]
    with pytest.warns(UserWarning, match="the gradient is not that of cross_entropy, for which the net was compiled"):
        functional.cross_entropy(net(batch()[0]), y, label_smoothing=0.2).backward()
    functional.cross_entropy(net(batch()[0]), y, label_smoothing=0.2).backward()


def test_defect_09_soft_targets_are_not_called_another_loss():
    net = compiled("reclra", loss="bce_with_logits")
    soft = torch.full((8, 10), 0.3, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"zeros and ones, times .* targets are soft, or its loss is another"):
        functional.binary_cross_entropy_with_logits(net(batch()[0]), soft).backward()


def test_defect_09_an_output_that_is_written_over_tells_nothing():
    net, y = compiled("reclra"), batch()[1]
    with pytest.warns(UserWarning, match="does not tell"):
        functional.cross_entropy(net(batch()[0]).mul_(0.5), y).backward()


def test_defect_09_proportional_rules_take_no_scale():
    update = compiled("dkp").graph.programs["update"]
    assert LOSS_SCALE not in update.inputs


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), "1", True])
def test_defect_09_a_scale_is_a_number_above_zero(scale):
    with pytest.raises(altprop.CompileError, match=r"loss_scale=.*it is a number above 0"):
        altprop.compile(nn.Linear(2, 2), loss_scale=scale)


def test_defect_09_a_copied_net_asks_the_same_function():
    class Scaler:
        def get_scale(self):
            return 2.0

    scaler = Scaler()
    net = altprop.compile(nn.Linear(2, 2), loss_scale=scaler.get_scale)
    assert copy.deepcopy(net)._loss_scale.given.__self__ is scaler


def ignoring(output, target):
    return functional.cross_entropy(output, target.where(torch.arange(len(target)) > 3, -100))


OUTPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.arange(12) % 5
TELLING = {
    "cross_entropy": ("cross_entropy", OUTPUTS, CLASSES, functional.cross_entropy),
    "ignored": ("cross_entropy", OUTPUTS, CLASSES, ignoring),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), OUTPUTS, CLASSES, nn.CrossEntropyLoss(reduction="sum")),
    "images": (nn.CrossEntropyLoss(), OUTPUTS.view(3, 5, 2, 2), CLASSES.view(3, 2, 2), functional.cross_entropy),
    "sequences": (nn.CrossEntropyLoss(), OUTPUTS.view(3, 5, 4), CLASSES.view(3, 4), nn.CrossEntropyLoss()),
    "sure": (nn.CrossEntropyLoss(), 30 * OUTPUTS, (30 * OUTPUTS).argmax(1), nn.CrossEntropyLoss()),
    "likelihood": (functional.nll_loss, OUTPUTS.log_softmax(1), CLASSES, functional.nll_loss),
    "logits": ("bce_with_logits", OUTPUTS, OUTPUTS.sin().round().abs(), functional.binary_cross_entropy_with_logits),
    "shares": (nn.BCELoss(), OUTPUTS.sigmoid(), OUTPUTS.sin().round().abs(), nn.BCELoss()),
    "l1": ("l1", OUTPUTS, OUTPUTS.sin(), functional.l1_loss),
}  # fmt: skip


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_defect_09_a_gradient_tells_the_scale(name, dtype):
    known, output, target, function = TELLING[name]
    output = output.to(dtype).requires_grad_()
    target = target.to(dtype) if target.is_floating_point() else target
    for scale in (1.0, 10.0, 2.0**16):
        (gradient,) = torch.autograd.grad(scale * function(output, target), output)
        told = get_loss(known).scale_of(output.detach(), gradient)
        assert float(told.misfit) < 1e-4
        assert float(told.scale) == pytest.approx(scale, rel=1e-5)
        assert scale == 10.0 or float(told.scale) == scale


@pytest.mark.parametrize("weighted", [True, False])
def test_defect_09_weights_and_smoothed_labels_hide_the_scale(weighted):
    loss = nn.CrossEntropyLoss(weight=torch.ones(5)) if weighted else nn.CrossEntropyLoss(label_smoothing=0.1)
    assert get_loss(loss).scale_of(OUTPUTS, OUTPUTS) is None
