"""Time of a training step in onnxruntime, beside plain autograd.

python -m benchmarks.onnx_step            # prints, writes results/onnx_step.json and the table in docs/onnx.md
python -m benchmarks.onnx_step --quick    # fewer rounds, writes nothing
python -m benchmarks.onnx_step --device cuda    # by onnxruntime's CUDA provider, in results/onnx_step_gpu.json
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch

from altprop import models
from benchmarks import timing
from benchmarks.step import our_step, plain_step

ROOT = Path(__file__).parent.parent
RULES = ("dfa", "reclra")
WORK: dict[str, tuple[str, tuple[int, ...], int]] = {
    "MLP 784-5x256-10, batch 128": ("mlp", (128, 1, 28, 28), 20),
    "2-conv net, batch 64": ("convnet", (64, 1, 28, 28), 3),
    "ResNet-20, batch 64": ("resnet20", (64, 3, 32, 32), 2),
}


def measure(name: str, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Times the backends on one piece of work."""
    kind, shape, repeats = WORK[name]
    torch.manual_seed(0)
    model = models.build(kind, shape[1:]).to(device)
    x, y = torch.randn(shape, device=device), torch.randint(0, 10, (shape[0],), device=device)
    steps = {
        f"altprop {rule}, {backend}": finished(our_step(copy.deepcopy(model), rule, x, y, backend), device)
        for rule in RULES
        for backend in ("onnxruntime", "eager")
    }
    base = finished(plain_step(model, x, y), device)
    return timing.ratios(base, steps, rounds=rounds, repeats=repeats, title=name)


def finished(step: timing.Step, device: torch.device) -> timing.Step:
    """The step, and a wait for the GPU where there is one: onnxruntime waits at its every step."""
    if device.type == "cpu":
        return step

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def table(results: dict[str, Any]) -> str:
    """Returns the ratios as a table, with the machine that they hold for."""
    made = results["machine"]
    threads = "one thread" if made["cores"] == "1" else f"{made['cores']} threads"
    where = made.get("gpu") or f"{made['processor']} ({made['simd']}), {threads}"
    lines = [
        f"Median ratio to plain autograd's time, with its quartiles, on {where}:",
        "",
        "| work | rule | onnxruntime | eager |",
        "| --- | --- | --- | --- |",
    ]
    for name, rows in results["step"].items():
        for rule in RULES:
            found = [rows[f"altprop {rule}, {backend}"] for backend in ("onnxruntime", "eager")]
            cells = [f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})" for row in found]
            lines.append(f"| {name} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    results: dict[str, Any] = {"machine": timing.machine(), "step": {}}
    if words.device.type == "cuda":
        results["machine"]["gpu"] = torch.cuda.get_device_name(words.device)
    for name in WORK:
        results["step"][name] = measure(name, 5 if words.quick else 15, words.device)
        for key, row in results["step"][name].items():
            print(f"{name:30} {key:30} {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})  {row['ms']:.1f} ms")
    if not words.quick:
        name, section = ("onnx_step", "steps") if words.device.type == "cpu" else ("onnx_step_gpu", "gpu steps")
        timing.save(ROOT / "benchmarks" / "results" / f"{name}.json", results)
        timing.replace_section(ROOT / "docs" / "onnx.md", section, table(results))


if __name__ == "__main__":
    main()
