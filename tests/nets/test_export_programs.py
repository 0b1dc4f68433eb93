"""The programs of several devices as files: run one after another they do what the schedule does in torch."""

import json
from pathlib import Path
from typing import Any

import kept
import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from torch import nn

import altprop
from altprop.compiler.export import programs
from altprop.compiler.export.programs import CONTRACT, run_files
from altprop.compiler.export.segments import segments
from altprop.ir.errors import ExportError, ScheduleError

pytestmark = pytest.mark.third

X = torch.linspace(-1.0, 1.0, 56).sin().reshape(8, 7)
IMAGES = torch.linspace(-9.0, 9.0, 8 * 3 * 64).sin().reshape(8, 3, 8, 8)
Y = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


def scheduled(rule: str, x: torch.Tensor, optimizer: Any, devices: int, **options: Any) -> altprop.Schedule:
    torch.manual_seed(0)
    model = tiny.Residual() if x.dim() == 4 else tiny.mlp(2)
    net = kept.compile(model, rule, example_inputs=(x,), optimizer=optimizer)
    return net.schedule(devices=devices, batch=8, **options)


def host(folder: Path) -> tuple[dict[str, Any], list[Any], dict[str, dict[str, np.ndarray]]]:
    contract = json.loads((folder / CONTRACT).read_text())
    sessions = [onnxruntime.InferenceSession(str(folder / entry["file"])) for entry in contract["files"]]
    states = {device: dict(np.load(folder / file)) for device, file in contract["initial"].items()}
    return contract, sessions, states


def given(contract: dict[str, Any], x: torch.Tensor) -> dict[str, np.ndarray]:
    whole = {"input": x.numpy(), "target": Y.numpy()}
    cut = {kind: np.split(array, contract["microbatches"]) for kind, array in whole.items()}
    return {item["value"]: cut[item["value"].partition(":")[0]][item["microbatch"]] for item in contract["given"]}


SGD, ADAM = altprop.optim.SGD(lr=0.05, momentum=0.9), altprop.optim.AdamW(lr=1e-3)
CELLS: dict[str, tuple[Any, ...]] = {
    "direct": ("dfa", X, SGD, 3, {}),
    "learned feedback": ("reclra", X, ADAM, 3, {"microbatches": 2}),
    "decay": ("kp(weight_decay=0.5)", X, SGD, 2, {}),
    "pipeline": ("bp", IMAGES, SGD, 2, {"microbatches": 2, "order": "1f1b"}),
}


@pytest.mark.parametrize("name", CELLS)
def test_files_equal_the_schedule(name: str, tmp_path: Path) -> None:
    rule, x, optimizer, devices, options = CELLS[name]
    schedule = scheduled(rule, x, optimizer, devices, **options)
    assert schedule.export(tmp_path / "files") == tmp_path / "files"
    contract, sessions, states = host(tmp_path / "files")
    scalars = {name: np.array(optimizer.lr, np.float32) for name in ("lr", "feedback_lr")}
    running = schedule.runtime("serial")
    for _ in range(3):
        loss = run_files(contract, sessions, states, given(contract, x), scalars)
        np.testing.assert_allclose(loss, float(running.step(x, Y)), atol=1e-5)
    assert {entry["device"] for entry in contract["files"]} == set(range(devices))
    model = dict(schedule._bound().model.state_dict())
    seen = {key: value for held in states.values() for key, value in held.items()}
    for key, value in model.items():
        np.testing.assert_allclose(seen[key], value.numpy(), atol=1e-5, err_msg=key)
    feedback = schedule._bound().feedback
    assert all(
        np.allclose(seen[f"feedback.{key}"], value.detach().numpy(), atol=1e-5) for key, value in feedback.items()
    )


def test_the_contract_says_what_goes_where(tmp_path: Path) -> None:
    contract, _, states = host(scheduled("dfa", X, SGD, 2).export(tmp_path))
    homes = {key: device for device, held in states.items() for key in held if key.endswith("weight")}
    assert set(homes.values()) == {"0", "1"}
    available = {item["value"] for item in contract["given"]}
    store: list[set[str]] = [set(available), set(available)]
    for entry in contract["files"]:
        assert {item["value"] for item in entry["inputs"]} <= store[entry["device"]], (
            "a file runs before its inputs are there"
        )
        assert set(entry["receive"]) <= {item["value"] for item in entry["inputs"]}
        store[entry["device"]] |= {item["value"] for item in entry["outputs"]}
        for item in entry["send"]:
            assert item["value"] in store[entry["device"]]
            store[item["to"]].add(item["value"])
    assert any(entry["send"] for entry in contract["files"])


def test_a_program_waits_only_behind_what_it_sends() -> None:
    made = segments(scheduled("bp", X, SGD, 2).programs)
    assert [part.device for part in made] == [0, 1, 0]
    labels = sorted(task.label for part in made for task in part.tasks if task.computes)
    assert labels == sorted(task.label for _, task in scheduled("bp", X, SGD, 2).programs.tasks() if task.computes)


def test_files_that_do_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = programs.run_files
    monkeypatch.setattr(programs, "run_files", lambda *args: run(*args) + 0.01)
    with pytest.raises(ExportError, match=r"run one after another, give another loss than torch, by .* Nothing was"):
        scheduled("dfa", X, SGD, 2).export(tmp_path / "files")
    assert not list((tmp_path / "files").iterdir())


def test_refusals(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 4))
    net = kept.compile(model, "dfa", example_inputs=(X,), optimizer=SGD)
    with pytest.raises(ExportError, match=r"device \d draws random numbers.*set the probabilities of dropout to 0"):
        net.schedule(devices=2, batch=8).export(tmp_path)
    schedule = scheduled("dfa", X, SGD, 2)
    with pytest.raises(ScheduleError, match="a schedule from text has no operators"):
        altprop.Schedule.parse(str(schedule)).export(tmp_path)
