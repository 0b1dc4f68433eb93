"""A step file trains in NumPy and onnxruntime alone, as far as it trains in torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import EXAMPLES, run
from torch import nn

import altprop
from altprop import models

STEPS, BATCH, TESTED = 60, 32, 1000
OPTIONS: dict[str, dict[str, Any]] = {"convnet": {"channels": 8, "features": 32}, "resnet8": {}}


def made(name: str, batch: int = BATCH) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = models.build(name, (1, 28, 28), **OPTIONS[name])
    optimizer = altprop.optim.AdamW(lr=3e-3)
    return altprop.compile(model, "reclra", example_inputs=(torch.zeros(batch, 1, 28, 28),), optimizer=optimizer)


def trained_in_torch(net: Any, example: Any, data: Path) -> float:
    """The same batches in the same order; the share of right answers, by the statistics of each test batch."""
    images, labels = example.load(data, "train")
    for rows in example.batches(len(images), BATCH, STEPS, np.random.default_rng(0)):
        net.step(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))
    images, labels = example.load(data, "test")
    with torch.no_grad():
        parts = torch.from_numpy(images[:TESTED]).split(250)
        scores = torch.cat([net.model.train()(part) for part in parts])
    return float((scores.argmax(1).numpy() == labels[:TESTED]).mean())


@pytest.mark.full
@pytest.mark.parametrize("name", list(OPTIONS))
def test_it_trains_without_torch_as_with_it(name: str, tmp_path: Path, data_dir: Path) -> None:
    net = made(name)
    path = net.export(tmp_path / "step.onnx")
    words = ["--data-dir", data_dir, "--steps", STEPS, "--batch", BATCH, "--test", TESTED, "--threads", 1]
    shown = json.loads(run("train_without_torch.py", path, *map(str, words)).splitlines()[-1])
    assert shown["torch_loaded"] is False
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("example", EXAMPLES / "train_without_torch.py")
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    expected = trained_in_torch(net, example, data_dir / "FashionMNIST" / "raw")
    assert expected > 0.3
    assert shown["accuracy"] == pytest.approx(expected, abs=0.03)
