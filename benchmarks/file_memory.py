"""Memory of the steps in the table of step files, in torch and in onnxruntime; ExecuTorch's arenas are known at export.

python benchmarks/file_memory.py           # of rows that have none yet; writes results/step_files.json
python benchmarks/file_memory.py --again   # of all rows
python benchmarks/step_files.py --nets     # then writes the page

In torch it is what a step holds at its peak, as `net.memory` counts it: all that the program made and has not freed.
onnxruntime does not tell what it holds. So a process that has NumPy and onnxruntime alone loads the states, opens the
file and trains twenty steps; what counts is by how much the most that this process ever held has grown since the
states were there. The session itself, its copy of the graph and the new states are in it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
STEPS = 20


def grown(path: Path) -> int:
    """By how many bytes the peak of this process grows as it opens a step file and trains by it."""
    import onnxruntime

    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with np.load(path.with_suffix(".npz")) as file:
        state = {one["name"]: file[one["name"]] for one in contract["states"]}
    state |= {one["name"]: np.array(one["default"], one["dtype"]) for one in contract["scalars"]}
    with np.load(path.with_name("batch.npz")) as file:
        state |= dict(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    before = peak()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    heads, tails = ([one.name for one in ends] for ends in (session.get_inputs(), session.get_outputs()))
    for _ in range(STEPS):
        made = dict(zip(tails, session.run(tails, {name: state[name] for name in heads}), strict=True))
        state |= {one["name"]: made[one["next"]] for one in contract["states"] if one["next"]}
    return peak() - before


def peak() -> int:
    """The most bytes that this process has held in memory, by Linux. (`getrusage` would count its parent's too.)"""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def measure(name: str, rule: str, optimizer: str) -> dict[str, int]:
    """Bytes of a step by engine."""
    from step_files import compiled
    from step_nets import batch_of

    net = compiled(name, rule, optimizer)
    x, y = batch_of(name, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = net.export(Path(folder) / "step.onnx", target=y)
        image = json.loads(path.with_suffix(".json").read_text("utf-8"))["inputs"][0]["name"]
        np.savez(path.with_name("batch.npz"), **{image: x.numpy(), "target": y.numpy()})
        words = [sys.executable, __file__, "--file", str(path)]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return {"torch": net.memory(x, y).live, "onnxruntime": int(done.stdout)}


def main() -> None:
    """Measures what is not there yet, and keeps each row at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--file", type=Path, help="print the bytes of one file alone: what a process of its own runs")
    words = parser.parse_args()
    if words.file:
        print(grown(words.file))
        return
    import timing
    from step_files import RESULTS

    for key in list(json.loads(RESULTS.read_text("utf-8"))["rows"]):
        kept: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))  # another run may have kept rows meanwhile
        row = kept["rows"][key]
        if "refused" in row or (all("memory" in row[one] for one in ("torch", "onnxruntime")) and not words.again):
            continue
        for engine, count in measure(*key.split(", ")).items():
            row[engine]["memory"] = count
        timing.save(RESULTS, kept)
        print(key, row["torch"]["memory"], row["onnxruntime"]["memory"], flush=True)


if __name__ == "__main__":
    main()
