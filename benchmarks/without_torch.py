"""Fashion-MNIST in torch and in onnxruntime alone, from the same initial weights on the same batches.

python benchmarks/without_torch.py --data-dir data                 # 200 steps, three seeds; writes docs/onnx.md
python benchmarks/without_torch.py --data-dir data --seeds 1 --steps 20   # anything less is printed alone

`examples/train_without_torch.py` runs in a process of its own, which has neither torch nor altprop, and says so. Test
accuracy is that of the step's own prediction on the 10,000 test images, in batches of 250, on both sides; in the
network with batch norm it stands on the statistics of each batch.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import timing
import torch
from rich.progress import Progress

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "train_without_torch.py"
WORK = {"convnet": "2-conv net", "resnet8": "residual net"}
RULES = ("dfa", "reclra")
STEPS, SEEDS, BATCH = 200, 3, 64


def example() -> ModuleType:
    """The example as a module: both sides read the data and draw the batches by it."""
    spec = importlib.util.spec_from_file_location("train_without_torch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(name: str, rule: str, seed: int) -> altprop.LocalNet:
    """The net of a seed, as it was drawn."""
    torch.manual_seed(seed)
    model = models.build(name, (1, 28, 28))
    images = torch.zeros(BATCH, 1, 28, 28)
    optimizer = altprop.optim.AdamW(lr=1e-3)
    return altprop.compile(model, rule, example_inputs=(images,), optimizer=optimizer, seed=seed)


def in_torch(net: altprop.LocalNet, tools: ModuleType, folder: Path, steps: int, seed: int) -> float:
    """Trains with `net.step`; returns the test accuracy in percent."""
    images, labels = tools.load(folder, "train")
    for rows in tools.batches(len(images), BATCH, steps, np.random.default_rng(seed)):
        net.step(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))
    images, labels = tools.load(folder, "test")
    with torch.no_grad():
        scores = torch.cat([net.model.train()(part) for part in torch.from_numpy(images).split(250)])
    return 100 * float((scores.argmax(1).numpy() == labels).mean())


def without(net: altprop.LocalNet, data: Path, steps: int, seed: int) -> float:
    """Exports and trains in a process without torch; returns the test accuracy in percent."""
    with tempfile.TemporaryDirectory() as folder:
        path = net.export(Path(folder) / "step.onnx")
        words = ["--data-dir", data, "--steps", steps, "--batch", BATCH, "--seed", seed]
        command = [sys.executable, str(EXAMPLE), str(path), *map(str, words)]
        shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(shown.splitlines()[-1])
    if found["torch_loaded"]:
        raise SystemExit("the example has loaded torch: what it trained says nothing.")
    return 100 * float(found["accuracy"])


def run(data: Path, steps: int, seeds: int) -> dict[str, Any]:
    """Trains everything; accuracies by net and rule, one for each seed."""
    tools = example()
    folder = data / "FashionMNIST" / "raw"
    results: dict[str, Any] = {"machine": timing.machine(), "steps": steps, "batch": BATCH, "runs": []}
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=len(WORK) * len(RULES) * seeds)
        for name in WORK:
            for rule in RULES:
                row: dict[str, Any] = {"net": name, "rule": rule, "torch": [], "onnxruntime": []}
                for seed in range(seeds):
                    net = made(name, rule, seed)
                    row["onnxruntime"].append(round(without(net, data, steps, seed), 2))
                    row["torch"].append(round(in_torch(net, tools, folder, steps, seed), 2))
                    progress.advance(task)
                results["runs"].append(row)
    return results


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    count = len(results["runs"][0]["torch"])
    lines = [
        f"{results['steps']} steps of {results['batch']} images, AdamW at 1e-3, {count} seeds: mean test accuracy in "
        "percent, its standard deviation over seeds, and the largest difference of a seed. "
        + timing.measured_on(results["machine"]),
        "",
        "| net | rule | torch | onnxruntime alone | means differ by | one seed, at most |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["runs"]:
        ours, theirs = row["onnxruntime"], row["torch"]
        apart = abs(statistics.fmean(ours) - statistics.fmean(theirs))
        most = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        cells = (WORK[row["net"]], row["rule"], shown(theirs), shown(ours), f"{apart:.2f}", f"{most:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"


def main() -> None:
    """Reads the command line, trains, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    words = parser.parse_args()
    if words.threads:
        torch.set_num_threads(words.threads)
    folder = words.data_dir / "FashionMNIST" / "raw"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: give the folder of the data sets by --data-dir.")
    results = run(words.data_dir, words.steps, words.seeds)
    print(table(results))
    if words.steps >= STEPS and words.seeds >= SEEDS:
        timing.save(ROOT / "benchmarks" / "results" / "without_torch.json", results)
        timing.replace_section(ROOT / "docs" / "onnx.md", "without_torch", table(results))


if __name__ == "__main__":
    main()
