"""A step file trains in NumPy and ExecuTorch's C++ runtime alone, and torch takes the weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from processes import run

import altprop
from altprop import models
from altprop.compiler.export import pte_file

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not pte_file.is_installed(), reason="ExecuTorch is not installed: pip install 'altprop[executorch]'"
    ),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here to build the runtime with"),
]


def test_it_trains_without_torch_and_torch_takes_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    from safetensors.torch import load_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build("mlp", (1, 8, 8))
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    net = altprop.compile(model, "dfa", example_inputs=torch.zeros(16, 1, 8, 8), optimizer=optimizer)
    path = net.export(tmp_path / "step.pte")
    lines = run("train_on_device.py", path, "--epochs", "3", "--out", tmp_path / "trained.safetensors").splitlines()
    shown = json.loads(lines[-1])
    assert shown["torch_loaded"] is False
    assert shown["accuracy"] > 0.85
    assert shown["arena"] == json.loads(path.with_suffix(".json").read_text("utf-8"))["arena"]
    before = net.model.state_dict()["fc1.weight"].clone()
    net.model.load_state_dict(load_file(tmp_path / "trained.safetensors"))
    assert not torch.equal(net.model.state_dict()["fc1.weight"], before)
