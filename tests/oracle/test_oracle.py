"""The compiler's own oracle: the exact transpose on every forward edge is autograd, for the whole zoo.

All numbers are float64. A net and a copy of its model run from the same random state, so that dropout masks
agree.
"""

import copy

import kept
import pytest
import torch
from against_autograd import (
    assert_same_gradients,
    autograd,
    by_program,
    check_against_autograd,
    check_every_parameter_moves,
)
from choose import one_each, third
from zoo import ZOO

import altprop

LEARNING_RULES = ("fa", "dfa", "reclra")
ALIGNED = (
    "mlp_tanh",
    "mlp_relu_no_bias",
    "conv_bn_dropout",
    "residual",
    "encoder_layer",
    "resnet18",
    "gpt2_sdpa",
)


@pytest.mark.parametrize("name", third(ZOO))
def test_transpose_feedback_is_autograd(name: str) -> None:
    check_against_autograd(ZOO[name])


def set_feedback_to_weights(net: altprop.LocalNet) -> None:
    weights = dict(net.model.named_parameters())
    with torch.no_grad():
        for name, matrix in net.feedback.items():
            weight = weights[net.feedback.specs[name].stands_for]
            assert matrix.shape == weight.shape
            matrix.copy_(weight)


@pytest.mark.parametrize("name", third(ALIGNED, always=["mlp_tanh", "residual"]))
def test_feedback_alignment_with_the_weights_is_autograd(name: str) -> None:
    case = ZOO[name]
    net = kept.net(case, "fa")
    model = net.model
    reference = copy.deepcopy(model)
    assert len(net.feedback) > 0
    random = copy.deepcopy(net)
    set_feedback_to_weights(net)
    autograd(case, reference, 3)
    by_program(case, net, 3)
    assert_same_gradients(model, reference)

    by_program(case, random, 3)
    with pytest.raises(AssertionError):
        assert_same_gradients(random.model, reference)


LARGE = ("resnet18", "mobilenet_v2", "torchvision_vit", "gpt2_eager")
"""Models that take seconds: other tests have them every day."""


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *one_each([name for name in ZOO if name not in LARGE], LEARNING_RULES),
        *(pytest.param(name, rule, marks=pytest.mark.full) for name in LARGE for rule in LEARNING_RULES),
    ],
)
def test_every_parameter_moves_without_autograd(name: str, rule: str) -> None:
    check_every_parameter_moves(ZOO[name], rule)
