"""A loop over a step file in onnxruntime, beside the products and convolutions in it, by onnxruntime's own profile.

python benchmarks/onnx_profile.py            # prints, writes results/onnx_profile.json and the table in docs/onnx.md
python benchmarks/onnx_profile.py --rounds 25 --nets "ResNet-20, batch 64"    # some of it; the other rows stay
python benchmarks/onnx_profile.py --quick    # fewer rounds, writes nothing

What a step takes beyond its products and convolutions is what its file costs: the rest of the operators, and the loop.
"""

import argparse
import collections
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timing
import torch

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "onnx_profile.json"
RULES = ("dfa", "reclra")
WORK: dict[str, tuple[str, tuple[int, ...]]] = {
    "MLP 784-5x256-10, batch 128": ("mlp", (128, 1, 28, 28)),
    "2-conv net, batch 64": ("convnet", (64, 1, 28, 28)),
    "ResNet-20, batch 64": ("resnet20", (64, 3, 32, 32)),
}
LABELS = [f"{name}: {rule}" for name in WORK for rule in RULES]
SHOWN = 10  # kinds of kernels that the second table names
PRODUCTS = ("Gemm", "MatMul", "Conv", "ConvTranspose")


class Loop:
    """A step file with bound memory: each state has two places, one to read and one to write."""

    def __init__(self, path: Path, profile: Path | None = None) -> None:
        contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        with np.load(path.with_suffix(".npz")) as file:
            states = {one["name"]: file[one["name"]] for one in contract["states"]}
        given = states | {one["name"]: np.array(one["default"], one["dtype"]) for one in contract["scalars"]}
        given |= drawn(contract)
        made = onnxruntime.OrtValue.ortvalue_from_numpy
        places = [{name: made(value) for name, value in given.items()} for _ in range(2)]
        after = {one["next"]: one["name"] for one in contract["states"] if one["next"]}
        self.bindings = [self.bind(places[turn], places[1 - turn], after) for turn in range(2)]

    def bind(self, reads: dict[str, Any], writes: dict[str, Any], after: dict[str, str]) -> Any:
        """Binds what a step reads, and where it writes."""
        binding = self.session.io_binding()
        for head in self.session.get_inputs():
            binding.bind_ortvalue_input(head.name, reads[head.name])
        for tail in self.session.get_outputs():
            if tail.name in after:
                binding.bind_ortvalue_output(tail.name, writes[after[tail.name]])
            else:
                binding.bind_output(tail.name)
        return binding

    def step(self) -> None:
        """Runs one step; the places change."""
        self.session.run_with_iobinding(self.bindings[0])
        self.bindings.reverse()


def drawn(contract: dict[str, Any]) -> dict[str, np.ndarray]:
    """A batch at random; the first size of a shape is given by the contract's example."""
    generator = np.random.default_rng(0)
    batch = contract["example"]
    shapes = {one["name"]: [batch, *one["shape"][1:]] for one in contract["inputs"]}
    image, label = (one["name"] for one in contract["inputs"])
    return {
        image: generator.standard_normal(shapes[image]).astype(np.float32),
        label: generator.integers(0, 10, shapes[label]),
    }


def kernels(path: Path, folder: Path, steps: int) -> dict[str, float]:
    """Milliseconds of each kind of operator in a step: of each operator, the fastest of some steps."""
    loop = Loop(path, folder / "profile")
    for _ in range(steps):
        loop.step()
    events = json.loads(Path(loop.session.end_profiling()).read_text("utf-8"))
    fastest: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            fastest[key] = min(event["dur"] / 1000, fastest.get(key, np.inf))
    sums: collections.Counter[str] = collections.Counter()
    for (kind, _), milliseconds in fastest.items():
        sums[kind.removeprefix("Fused")] += milliseconds
    return dict(sums)


def measure(name: str, rule: str, rounds: int) -> dict[str, Any]:
    """Times the loop and its kernels, each at its fastest, so that a neighbour on the machine costs neither."""
    kind, shape = WORK[name]
    torch.manual_seed(0)
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(models.build(kind, shape[1:]), rule, example_inputs=torch.randn(shape), optimizer=optimizer)
    with tempfile.TemporaryDirectory() as folder:
        path = net.export(Path(folder) / "step.onnx")
        contract = path.with_suffix(".json")
        contract.write_text(json.dumps(json.loads(contract.read_text("utf-8")) | {"example": shape[0]}), "utf-8")
        loop = Loop(path)
        for _ in range(3):
            loop.step()
        whole = min(timing.seconds(loop.step, 1) for _ in range(rounds)) * 1000
        sums = kernels(path, Path(folder), rounds)
        size = path.stat().st_size
    products = sum(milliseconds for kind, milliseconds in sums.items() if kind in PRODUCTS)
    return {"step": whole, "products": products, "kernels": sum(sums.values()), "bytes": size, "kinds": sums}


def rest_table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the table of the other kinds of kernels, those that take longest in front; of nets with convolutions."""
    shown = {key: row["kinds"] for key, row in rows.items() if "Conv" in row.get("kinds", {})}
    total = collections.Counter[str]()
    for kinds in shown.values():
        total.update({kind: ms for kind, ms in kinds.items() if kind not in PRODUCTS})
    often = [kind for kind, _ in total.most_common(SHOWN)]
    lines = [f"| kernel | {' | '.join(shown)} |", f"| --- |{' --- |' * len(shown)}"]
    for kind in often:
        lines.append(f"| {kind} | {' | '.join(f'{kinds.get(kind, 0):.2f}' for kinds in shown.values())} |")
    others = [sum(ms for one, ms in kinds.items() if one not in (*often, *PRODUCTS)) for kinds in shown.values()]
    return "\n".join([*lines, f"| all others | {' | '.join(f'{ms:.2f}' for ms in others)} |"])


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the table in Markdown."""
    lines = [
        "| net | rule | step, ms | its products and convolutions | all its kernels | step / products | file, kB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, row in rows.items():
        name, _, rule = key.rpartition(": ")
        ratio = row["step"] / row["products"]
        numbers = [f"{row[one]:.2f}" for one in ("step", "products", "kernels")]
        lines.append(f"| {name} | {rule} | {' | '.join(numbers)} | {ratio:.2f} | {row['bytes'] / 1000:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and unless it has to be quick, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=200, help="each operator counts at its fastest of as many")
    parser.add_argument("--nets", nargs="+", default=list(WORK), choices=list(WORK))
    words = parser.parse_args()
    rounds = 20 if words.quick else words.rounds
    rows = {f"{name}: {rule}": measure(name, rule, rounds) for name in words.nets for rule in RULES}
    print(table(rows), rest_table(rows), sep="\n\n")
    if not words.quick:
        kept = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else {}
        rows = {key: {**kept, **rows}[key] for key in LABELS if key in kept or key in rows}
        where = timing.machine()
        timing.save(RESULTS, {"machine": where, "rows": rows})
        for section, text in (("onnx_profile", table(rows)), ("onnx_rest", rest_table(rows))):
            timing.replace_section(ROOT / "docs" / "onnx.md", section, f"{timing.measured_on(where)}\n\n{text}")


if __name__ == "__main__":
    main()
