"""Size and latency of the zoo's step files, written into docs/onnx.md.

python benchmarks/onnx_table.py              # what is not measured yet; ten minutes or so in all
python benchmarks/onnx_table.py --only mlp   # some models, anew; the other rows stay
python benchmarks/onnx_table.py --minutes 3  # as far as it comes

Each row is kept in results/onnx_table.json at once. One of another machine or of other versions is measured again.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timing
import torch
from private_torch import pytree
from rich.progress import Progress

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "onnx_table.json"
sys.path.insert(0, str(ROOT / "tests"))

from conftest import register_torchvision_operators  # noqa: E402
from onnx_nets import zoo_net  # noqa: E402
from zoo import ZOO  # noqa: E402
from zoo_cases import single  # noqa: E402

BATCH = 32
RULES = ("dfa", "reclra")
OWN: dict[str, tuple[int, ...]] = {
    "mlp": (1, 28, 28),
    "convnet": (1, 28, 28),
    "resnet8": (3, 32, 32),
    "resnet20": (3, 32, 32),
}
Work = tuple[altprop.LocalNet, Any, Any]  # a net, a batch of its inputs, of its targets


def own(name: str, rule: str) -> Work:
    """A model of `altprop.models`."""
    shape = OWN[name]
    torch.manual_seed(0)
    model = models.build(name, shape)
    net = altprop.compile(model, rule, example_inputs=(torch.randn(4, *shape),), optimizer=optimizer())
    return net, torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))


def of_tests(name: str, rule: str) -> Work:
    """A model that the tests train; they are tiny."""
    case = ZOO[name]
    net = zoo_net(case, rule, optimizer())
    return net, single(case.inputs(BATCH)), single(case.target(BATCH))


def optimizer() -> Any:
    """The optimizer inside every file."""
    return altprop.optim.SGD(lr=1e-3, momentum=0.9)


WORK: dict[str, Callable[[str, str], Work]] = {**dict.fromkeys(OWN, own), **dict.fromkeys(ZOO, of_tests)}


def feeds(path: Path, inputs: Any, target: Any) -> tuple[dict[str, np.ndarray], float]:
    """Returns what a step takes, and the MiB of its states."""
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with np.load(path.with_suffix(".npz")) as stored:
        given = {state["name"]: stored[state["name"]] for state in contract["states"]}
    size = sum(value.nbytes for value in given.values()) / 2**20
    leaves = [leaf.numpy() for leaf in pytree.tree_leaves(inputs)]
    named = inputs if isinstance(inputs, dict) else {}
    for number, head in enumerate(head for head in contract["inputs"] if head["part"] == "input"):
        given[head["name"]] = named[head["name"]].numpy() if head["name"] in named else leaves[number]
    targets = [leaf.numpy() for leaf in pytree.tree_leaves(target)]
    for head in (head for head in contract["inputs"] if head["part"] == "target"):
        given[head["name"]] = targets[int(head["name"].partition(".")[2] or 0)]
    return given | {s["name"]: np.array(s["default"], s["dtype"]) for s in contract["scalars"]}, size


def measure(name: str, rule: str, folder: Path) -> dict[str, float]:
    """Exports one step and times it; returns its numbers, none if it is refused."""
    net, inputs, target = WORK[name](name, rule)
    example = pytree.tree_map(lambda leaf: leaf[:4], target)
    try:
        path = net.export(folder / f"{name}-{rule}.onnx", target=example)
    except altprop.CompileError:
        return {}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    opened = time.perf_counter() - start
    given, size = feeds(path, inputs, target)
    wanted = {head.name for head in session.get_inputs()}
    given = {key: value for key, value in given.items() if key in wanted}
    times = []
    for _ in range(9):
        start = time.perf_counter()
        session.run(None, given)
        times.append(time.perf_counter() - start)
    step = statistics.median(times[1:])
    return {"KiB": path.stat().st_size / 1024, "states": size, "opening": opened * 1e3, "step": step * 1e3}


def shown(number: float) -> str:
    """Two digits, or all of a whole number."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], machine: Mapping[str, str]) -> str:
    """Returns the table, with the machine that it holds for: each number by each rule."""
    heads = {"KiB": "file, KiB", "states": "states, MiB", "opening": "opening, ms", "step": f"step of {BATCH}, ms"}
    lines = [["model", *heads.values()], ["---"] * (1 + len(heads))]
    for name in filter(rows.__contains__, WORK):
        found = [rows[name][rule] for rule in RULES]
        cells = [" / ".join(shown(one[key]) if key in one else "-" for one in found) for key in heads]
        lines.append([name, *cells])
    where = f"{timing.measured_on(machine)} SGD with momentum, median of eight steps; {' / '.join(RULES)}."
    text = f"{where} The first {len(OWN)} models are `altprop.models`', the others the tests'."
    return text + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def kept_rows() -> dict[str, dict[str, dict[str, float]]]:
    """The rows of before that are of this machine and these versions."""
    kept: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    found: dict[str, dict[str, dict[str, float]]] = kept.get("rows", {})
    return found if kept.get("machine") == timing.machine() else {}


def main() -> None:
    """Measures, keeps each row, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(WORK), nargs="+", help="measure these, also if they are there")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after as many")
    words = parser.parse_args()
    torch.set_num_threads(1)
    register_torchvision_operators()
    end, rows = time.monotonic() + 60 * words.minutes, kept_rows()
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as progress:
        for name in progress.track(words.only or [one for one in WORK if one not in rows]):
            if time.monotonic() < end:
                rows[name] = {rule: measure(name, rule, Path(folder)) for rule in RULES}
                timing.save(RESULTS, {"machine": timing.machine(), "rows": rows})
    text = table(rows, timing.machine())
    print(text)
    timing.replace_section(ROOT / "docs" / "onnx.md", "table", text)


if __name__ == "__main__":
    main()
