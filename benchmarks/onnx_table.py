"""Size and latency of step files, written into docs/onnx.md.

python benchmarks/onnx_table.py            # exports, times, rewrites the table
python benchmarks/onnx_table.py --only mlp # one model, printed alone
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timing
import torch

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
BATCH = 32
WORK: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "mlp": ("mlp", (1, 28, 28), {}),
    "convnet": ("convnet", (1, 28, 28), {}),
    "resnet8": ("resnet8", (3, 32, 32), {}),
}
RULES = ("dfa", "reclra")


def feeds(path: Path, shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], float]:
    """Returns what a step takes, and the MiB of its states."""
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with np.load(path.with_suffix(".npz")) as stored:
        given = {state["name"]: stored[state["name"]] for state in contract["states"]}
    size = sum(value.nbytes for value in given.values()) / 2**20
    generator = np.random.default_rng(0)
    given[contract["inputs"][0]["name"]] = generator.standard_normal((BATCH, *shape)).astype(np.float32)
    given[contract["inputs"][1]["name"]] = generator.integers(0, 10, BATCH)
    return given | {s["name"]: np.array(s["default"], s["dtype"]) for s in contract["scalars"]}, size


def measure(name: str, rule: str, folder: Path) -> list[str]:
    """Exports one step and times it. Returns a row of the table."""
    kind, shape, options = WORK[name]
    torch.manual_seed(0)
    optimizer = altprop.optim.SGD(lr=1e-3, momentum=0.9)
    model = models.build(kind, shape, **options)
    net = altprop.compile(model, rule, example_inputs=(torch.randn(4, *shape),), optimizer=optimizer)
    path = net.export(folder / f"{name}-{rule}.onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    opened = time.perf_counter() - start
    given, size = feeds(path, shape)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        session.run(None, given)
        times.append(time.perf_counter() - start)
    numbers = [f"{path.stat().st_size / 1024:.0f}", f"{size:.1f}", f"{opened * 1e3:.0f}"]
    return [name, rule, *numbers, f"{statistics.median(times[1:]) * 1e3:.1f}"]


def table(rows: list[list[str]]) -> str:
    """Returns the table, with the machine that it holds for."""
    heads = ["model", "rule", "file, KiB", "states, MiB", "opening, ms", f"step of {BATCH}, ms"]
    lines = [heads, ["---"] * len(heads), *rows]
    made = timing.machine()
    where = f"On {made['processor']} ({made['simd']}), one thread, SGD with momentum, median of eight steps:"
    return where + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(WORK))
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [words.only] if words.only else list(WORK)
        rows = [measure(name, rule, Path(folder)) for name in names for rule in RULES]
    print(table(rows))
    if not words.only:
        timing.replace_section(ROOT / "docs" / "onnx.md", "table", table(rows))


if __name__ == "__main__":
    main()
