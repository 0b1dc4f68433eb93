"""The page that learns: built, opened in headless Chromium, trained, reloaded; its weights go on in torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import HANG
from safetensors.torch import load_file

import altprop
from altprop import models

# A build by Vite and a page that trains take 20 seconds of processor time.
pytestmark = pytest.mark.full

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "browser"
LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", "model")


def run(folder: Path, *words: str | Path, **environment: str) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's path."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the page is built with Vite, which needs Node 20 or newer")
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium here: install it, or name it in the variable CHROMIUM")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Path:
    """A copy of the page's folder, built."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    folder = tmp_path_factory.mktemp("browser") / "page"
    shutil.copytree(SOURCE, folder, ignore=LEFT_OUT)
    modules = SOURCE / "node_modules"
    if modules.is_dir():
        (folder / "node_modules").symlink_to(modules)
    else:
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("npm ci failed: the page's packages come from the npm registry")
    run(folder, sys.executable, folder / "make_step.py")
    run(folder, "npx", "vite", "build")
    return folder


@pytest.fixture(scope="module")
def visit(page: Path, chromium: str) -> dict[str, Any]:
    """What a visitor found."""
    shown = run(page, "node", "test/end_to_end.mjs", page / "weights.safetensors", CHROMIUM=chromium)
    found: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return found


def test_it_learns_from_drawings_and_digits(visit: dict[str, Any]) -> None:
    assert visit["problems"] == []
    assert visit["untrained"] < 40
    assert visit["drawnSteps"] == 6
    assert visit["trained"] > 85


def test_the_error_pathway_is_drawn_and_moves(visit: dict[str, Any]) -> None:
    assert visit["connections"] == ["fc3->fc2", "fc3->fc1"]
    for errors in (visit["errors"], visit["errorsInTraining"]):
        assert set(errors) == {"fc1", "fc2", "fc3"}
        assert all(float(size) > 0 for size in errors.values())


def test_the_weights_survive_a_reload(visit: dict[str, Any]) -> None:
    assert visit["reloaded"] == visit["trained"]
    assert visit["reloadedSteps"] == visit["steps"] > 300
    assert visit["forgotten"] == visit["untrained"]


def test_no_request_leaves_the_page(visit: dict[str, Any]) -> None:
    assert visit["elsewhere"] == []


def test_the_saved_weights_go_on_in_torch(visit: dict[str, Any], page: Path) -> None:
    model = models.build("mlp", (1, 8, 8), hidden=[96, 64])
    optimizer = altprop.optim.AdamW(lr=0.003)
    net = altprop.compile(model, "reclra", example_inputs=(torch.zeros(2, 1, 8, 8),), optimizer=optimizer)
    net.load_state_dict(load_file(page / "weights.safetensors"))
    stored = np.frombuffer((page / "public" / "model" / "digits.bin").read_bytes(), np.uint8)
    images = torch.from_numpy(stored[: 1797 * 64].reshape(-1, 1, 8, 8)[-360:] / 16).float()
    labels = torch.from_numpy(stored[1797 * 64 :][-360:].astype(np.int64))
    share = float((model(images).argmax(1) == labels).float().mean())
    assert 100 * share == pytest.approx(visit["trained"], abs=0.6)
    assert float(net.step(images[:32], labels[:32])) < 1.0
