"""A run by a schedule goes on with the masks that the run which was stopped would have drawn."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import altprop
from altprop.runtime.parallel.random_state import random_state, set_random_state

X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


def test_a_resumed_run_draws_the_masks_of_the_one_that_was_stopped(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    net = altprop.compile(model, "dfa", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))
    other = copy.deepcopy(net)
    runtime = net.schedule(devices=2, batch=8).runtime("serial")
    torch.manual_seed(3)
    runtime.step(X, Y)
    runtime.save(tmp_path)
    runtime.step(X, Y)
    torch.manual_seed(11)  # of no matter
    resumed = other.schedule(devices=2, batch=8).runtime("serial")
    assert resumed.resume(tmp_path) == 1
    resumed.step(X, Y)
    pairs = zip(net.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_state_that_is_none_is_refused() -> None:
    before = torch.get_rng_state()
    for text in ("", "AAAA", "no base64"):
        with pytest.raises(ValueError, match="the random state of the cpu is none"):
            set_random_state({"cpu": text})
    assert torch.equal(torch.get_rng_state(), before)
    set_random_state({})
    set_random_state(random_state())
