"""`compile(memory="least")`: the same bits from a step that holds less."""

import copy
from typing import Any

import kept
import pytest
import torch
from torch import nn
from zoo import ZOO

import altprop
from altprop.ir.errors import CompileError

OPTIMIZERS = {"sgd": altprop.optim.SGD(lr=0.1, momentum=0.9), "adamw": altprop.optim.AdamW(lr=0.01)}


def trained(
    model: nn.Module, rule: str, batch: tuple[Any, Any], **options: Any
) -> tuple[altprop.LocalNet, list[float]]:
    """A net behind two steps, and its losses."""
    net = altprop.compile(copy.deepcopy(model), rule, example_inputs=batch[0], **options)
    torch.manual_seed(0)
    return net, [float(net.step(*batch)) for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "rule", "optimizer"),
    [
        ("residual", "dfa", "sgd"),
        ("conv_bn_dropout", "reclra", "adamw"),
        ("encoder_layer", "dfa", "adamw"),
        pytest.param("encoder_layer", "bp", "sgd", marks=pytest.mark.full),
        pytest.param("branches", "kp", "sgd", marks=pytest.mark.full),
    ],
)
def test_a_step_that_holds_less_gives_the_same_numbers(name: str, rule: str, optimizer: str) -> None:
    case = ZOO[name]
    batch = case.inputs(4), case.target(4)
    options = {"loss": case.loss, "optimizer": OPTIMIZERS[optimizer]}
    model = case.model()
    usual, losses = trained(model, rule, batch, **options)
    least, others = trained(model, rule, batch, memory="least", **options)
    assert losses == pytest.approx(others, rel=1e-12)
    for key, value in usual.state_dict().items():
        assert torch.allclose(value, least.state_dict()[key], rtol=0, atol=1e-12), key


def deep() -> nn.Module:
    """Wide images through eight layers, with norms."""
    torch.manual_seed(0)
    layers = [m for _ in range(8) for m in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(("rule", "share"), [("dfa(kind='channel')", 0.4), ("bp", 0.6)])
def test_a_deep_net_is_trained_in_a_part_of_the_memory_with_the_same_bits(rule: str, share: float) -> None:
    batch = torch.randn(8, 4, 16, 16), torch.randint(3, (8,))
    options = {"optimizer": OPTIMIZERS["sgd"]}
    model = deep()
    usual, losses = trained(model, rule, batch, **options)
    least, others = trained(model, rule, batch, memory="least", **options)
    assert losses == others
    for key, value in usual.state_dict().items():
        assert torch.equal(value, least.state_dict()[key]), key
    assert least.memory(*batch).live < share * usual.memory(*batch).live


def test_gradients_are_the_same_bits() -> None:
    batch = torch.randn(8, 4, 16, 16), torch.randint(3, (8,))
    found = []
    for memory in ("usual", "least"):
        net = altprop.compile(deep(), "dfa(kind='channel')", example_inputs=batch[0], memory=memory)
        net.backward(*batch)
        found.append({name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_another_word_is_refused() -> None:
    with pytest.raises(CompileError, match='there are "usual" and "least"'):
        altprop.compile(nn.Linear(3, 2), "dfa", memory="little")


def test_an_engine_that_decides_by_itself_is_refused() -> None:
    with pytest.raises(CompileError, match='memory="least" beside backend="inductor"'):
        altprop.compile(nn.Linear(3, 2), "dfa", memory="least", backend="inductor")


def test_the_usual_program_makes_an_activity_again_behind_another_layout() -> None:
    """A convolution reads the activity channels last, and that is a view of it."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("without oneDNN nothing is laid out")
    net = kept.compile(deep(), "reclra(kind='channel')", example_inputs=(torch.randn(8, 4, 16, 16),))
    batch = torch.randn(8, 4, 16, 16), torch.randint(3, (8,))
    image = 8 * 4 * 16 * 16 * 4
    assert net.memory(*batch).live < 2 * 8 * image + 4 * image
