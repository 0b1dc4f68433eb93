"""A state that does not fit a net: the error says first whose it is, and then which names differ."""

from typing import Any

import pytest
import torch
from torch import nn

import altprop


def made(rule: str, **more: Any) -> altprop.LocalNet:
    """A net of three layers."""
    layers = nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)
    return altprop.compile(nn.Sequential(*layers), rule, example_inputs=(torch.zeros(2, 6),), **more)


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    return made("dfa")


def test_the_model_alone(net: altprop.LocalNet) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)^this is the state of the model alone.*Missing key"):
        net.load_state_dict(net.model.state_dict())
    net.model.load_state_dict(net.model.state_dict())


def test_other_connections(net: altprop.LocalNet) -> None:
    other = made("fa")
    with pytest.raises(RuntimeError, match=r"(?s)^this is the state of a net with other connections.*Missing key"):
        other.load_state_dict(net.state_dict())
    own = {key.removeprefix("model."): one for key, one in net.state_dict().items() if key.startswith("model.")}
    other.model.load_state_dict(own)
    torch.testing.assert_close(dict(other.model.state_dict()), dict(net.model.state_dict()), rtol=0, atol=0)


def test_another_optimizer(net: altprop.LocalNet) -> None:
    inside = made("dfa", optimizer=altprop.optim.Adam(lr=0.1))
    for one, other in ((net, inside), (inside, net)):
        with pytest.raises(RuntimeError, match=r"^this is the state of a net with another optimizer inside"):
            one.load_state_dict(other.state_dict())
    inside.load_state_dict(net.state_dict(), strict=False)
    torch.testing.assert_close(dict(inside.model.state_dict()), dict(net.model.state_dict()), rtol=0, atol=0)


def test_other_differences_are_told_by_torch_alone(net: altprop.LocalNet) -> None:
    with pytest.raises(RuntimeError, match=r"^Error"):
        net.load_state_dict(net.state_dict() | {"model.9.weight": torch.zeros(2)})
