"""Training steps as files: nets by rules by engines, whether they train as torch does, their size, time and memory.

python benchmarks/step_files.py                       # prints, writes results/step_files.json and docs/deploy.md
python benchmarks/step_files.py --nets mlp lstm --rules dfa    # some of it; what was measured before stays
python benchmarks/step_files.py --again --engines ExecuTorch XNNPACK    # what is there, in some engines, anew
python benchmarks/step_files.py --arenas              # instead: the arenas of ExecuTorch by rule and batch

A row trains twenty steps in torch, in onnxruntime and in ExecuTorch, from the same weights on the same batches; by
`dfa` also in ExecuTorch with XNNPACK. An engine is "equal" where losses and all states are within 1e-5 of torch's (of
numbers above 1, relative to the largest of their tensor). Where it is not, three things can show that it is rounding
that grows. The same steps are made in float64, in the same engine and in torch: where they are within 1e-5 there, the
arithmetic is the same. Or the net is trained in torch once more, from parameters that are changed by their last bit,
and ends as far off, within a factor of ten. Or at least fifteen of the twenty steps are equal where each begins with
what torch has: in the others a value next to the kink of a ReLU rounds to its other side. The table says which.
Otherwise it says by how much the engine is off, or why the file was refused. Times are the processor time of the
fastest step, on one thread.
"""

import argparse
import copy
import functools
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from step_file_tables import (
    ALIKE,
    ARENA_RULES,
    EQUAL,
    IN_TABLE,
    OTHER,
    RULES,
    arena_table,
    equal,
    other_table,
    table,
    where_table,
)
from step_nets import BATCH, NETS, batch_of

import altprop

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "step_files.json"
STEPS = 20
DELEGATED = ("dfa",)  # rules whose steps are also lowered to XNNPACK, which takes long
ARENA_BATCHES = (8, 32)
# Files take rates in float32: in float64 torch has to take the same.
RATE, SMALL_RATE = float(np.float32(0.01)), float(np.float32(1e-3))
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "SGD": lambda: altprop.optim.SGD(lr=RATE),
    "momentum": lambda: altprop.optim.SGD(lr=RATE, momentum=0.9),
    "Adam": lambda: altprop.optim.Adam(lr=SMALL_RATE),
    "Muon": lambda: altprop.optim.Muon(lr=SMALL_RATE, precision="float32"),
}


def compiled(name: str, rule: str, optimizer: str, batch: int = BATCH, dtype: torch.dtype = torch.float32) -> Any:
    """Compiles a net."""
    torch.manual_seed(0)
    example = batch_of(name, 99, batch, dtype)[0]
    model = NETS[name][0]().to(dtype)
    return altprop.compile(model, rule, example_inputs=(example,), optimizer=OPTIMIZERS[optimizer]())


Runner = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def in_onnxruntime(path: Path) -> Runner:
    """Opens a step file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    heads, tails = ([one.name for one in ends] for ends in (session.get_inputs(), session.get_outputs()))
    return lambda given: dict(zip(tails, session.run(tails, {name: given[name] for name in heads}), strict=True))


@functools.cache
def set_threads(count: int) -> None:
    """Sets the threads of ExecuTorch, before it loads anything: a program that is loaded holds those of then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of Python's own as it is imported
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        Runtime.get()
    _unsafe_reset_threadpool(count)


class InExecuTorch:
    """A program, loaded: its method is of no use without the program, which is kept for as long."""

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        set_threads(torch.get_num_threads())
        self.contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        self.program = Runtime.get().load_program(path.read_bytes())
        self.method = self.program.load_method("forward")

    def __call__(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs it once."""
        values = [torch.from_numpy(np.asarray(given[name])).contiguous() for name in self.contract["takes"]]
        results = self.method.execute(values)
        return {name: value.numpy() for name, value in zip(self.contract["gives"], results, strict=True)}


def in_torch_export(path: Path) -> Runner:
    """Opens a step file with torch alone."""
    step = torch.export.load(path).module()

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {name: torch.from_numpy(np.asarray(value)) for name, value in sorted(given.items())}
        with torch.no_grad():
            return {name: value.numpy() for name, value in step(values).items()}

    return run


ENGINES: dict[str, tuple[str, Callable[[Path], Runner], dict[str, str]]] = {
    "onnxruntime": (".onnx", in_onnxruntime, {}),
    "ExecuTorch": (".pte", InExecuTorch, {}),
    "XNNPACK": (".pte", InExecuTorch, {"delegate": "xnnpack"}),
    OTHER: (".pt2", in_torch_export, {}),
}


def milliseconds(step: Callable[[], Any]) -> float:
    """The processor time of one step: with one thread, its time on a machine that does nothing else."""
    start = time.process_time()
    step()
    return (time.process_time() - start) * 1000


def difference(expected: torch.Tensor, actual: np.ndarray) -> float:
    """The largest difference, of numbers above 1 relative to the largest."""
    one, other = expected.detach().double().numpy(), np.asarray(actual, np.float64)
    gap = float(np.abs(one - other).max(initial=0.0))
    return gap / max(1.0, float(np.abs(one).max(initial=0.0))) if np.isfinite(gap) else float("inf")


def dtype_of(net: Any) -> torch.dtype:
    """The type of a net's parameters."""
    found: torch.dtype = next(net.model.parameters()).dtype
    return found


def trained_in_torch(net: Any, name: str) -> tuple[list[float], float]:
    """Returns the losses, and the milliseconds of the fastest step."""
    losses: list[float] = []
    times = []
    for seed in range(STEPS):
        x, y = batch_of(name, seed, dtype=dtype_of(net))
        times.append(milliseconds(lambda x=x, y=y: losses.append(float(net.step(x, y)))))
    return losses, min(times)


def drift(net: Any, trained: Any, losses: list[float], name: str) -> float:
    """How far a net in torch ends from another whose parameters began one bit away."""
    nudged = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in nudged.model.parameters():
            parameter.copy_(torch.nextafter(parameter, parameter + 1))
    others, _ = trained_in_torch(nudged, name)
    pairs = zip(trained.state_dict().values(), nudged.state_dict().values(), strict=True)
    gaps = [difference(one, other.numpy()) for one, other in pairs if isinstance(one, torch.Tensor)]
    return max(*gaps, difference(torch.tensor(losses), np.array(others)))


def follow(net: Any, trained: Any, losses: list[float], name: str, engine: str, folder: Path) -> dict[str, Any]:
    """Exports a step, runs it for as long, and compares it with what torch has trained."""
    suffix, opened, options = ENGINES[engine]
    try:
        path = net.export(folder / f"step{suffix}", target=batch_of(name, 0)[1], **options)
    except altprop.CompileError as error:
        return {"refused": str(error)}
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    with np.load(path.with_suffix(".npz")) as file:
        state = {one["name"]: file[one["name"]] for one in contract["states"]}
    scalars = {one["name"]: np.array(one["default"], one["dtype"]) for one in contract["scalars"]}
    state |= scalars
    run, gap, times = opened(path), 0.0, []
    made: dict[str, np.ndarray] = {}
    image = contract["inputs"][0]["name"]
    for seed in range(STEPS):
        x, y = batch_of(name, seed, dtype=dtype_of(net))
        given = state | {image: x.numpy(), "target": y.numpy()}
        times.append(milliseconds(lambda given=given: made.update(run(given))))
        state |= {one["name"]: made[one["next"]] for one in contract["states"] if one["next"]}
        gap = max(gap, difference(torch.tensor(losses[seed], dtype=torch.float64), made["loss"]))
    for one in contract["states"]:
        gap = max(gap, difference(kept_value(trained, one), state[one["name"]]))
    found = {"difference": gap, "bytes": path.stat().st_size, "ms": min(times)}
    if gap > EQUAL and dtype_of(net) == torch.float32:
        found["alike"] = alike(copy.deepcopy(net), name, contract, lambda given: run({**scalars, **given}))
    return found | {key: contract[key] for key in ("arena", "operators") if key in contract}


def alike(net: Any, name: str, contract: Mapping[str, Any], run: Runner) -> int:
    """How many steps are equal where each begins with what torch has."""
    image, count = contract["inputs"][0]["name"], 0
    for seed in range(STEPS):
        x, y = batch_of(name, seed)
        given = {one["name"]: kept_value(net, one).numpy().copy() for one in contract["states"]}
        net.step(x, y)
        made = run(given | {image: x.numpy(), "target": y.numpy()})
        moved = [one for one in contract["states"] if one["next"]]
        count += all(difference(kept_value(net, one), made[one["next"]]) <= EQUAL for one in moved)
    return count


def kept_value(net: Any, state: Mapping[str, Any]) -> torch.Tensor:
    """What torch has for a state of a contract, in the state's type."""
    value: torch.Tensor = net.state_dict()[state["state_dict"]]
    return value.detach().to(getattr(torch, state["dtype"]))


def in_float64(name: str, rule: str, optimizer: str, engine: str) -> dict[str, Any]:
    """How far an engine is from torch where both count in float64."""
    try:
        net = compiled(name, rule, optimizer, dtype=torch.float64)
    except altprop.CompileError as error:
        return {"refused": str(error)}
    trained = copy.deepcopy(net)
    losses, _ = trained_in_torch(trained, name)
    with tempfile.TemporaryDirectory() as folder:
        found = follow(net, trained, losses, name, engine, Path(folder))
    return {key: found[key] for key in ("difference", "refused") if key in found}


def measure(name: str, rule: str, optimizer: str, engines: Sequence[str] = IN_TABLE) -> dict[str, Any]:
    """Measures one row, in some engines."""
    try:
        net = compiled(name, rule, optimizer)
    except altprop.CompileError as error:
        return {"refused": str(error)}
    trained = copy.deepcopy(net)
    losses, fastest = trained_in_torch(trained, name)
    states = sum(value.nbytes for value in net.state_dict().values() if isinstance(value, torch.Tensor))
    if not {"ExecuTorch", "XNNPACK"}.isdisjoint(engines):
        set_threads(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        chosen = [one for one in engines if one != "XNNPACK" or rule in DELEGATED]
        rows = {one: follow(net, trained, losses, name, one, Path(folder)) for one in chosen}
    found = {"ms": fastest, "states": states}
    for engine, one in rows.items():
        if one.get("difference", 0) > EQUAL and one.get("alike", 0) < ALIKE:
            one["float64"] = in_float64(name, rule, optimizer, engine)
            if one["float64"].get("difference", np.inf) > EQUAL:
                found["drift"] = drift(net, trained, losses, name)
    return {"torch": found, **rows}


def joined(kept: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """A row of before with what was measured now in the place of the same of then."""
    if "torch" not in kept or "torch" not in made:
        return dict(made)
    return {**kept, **made, "torch": {**kept["torch"], **made["torch"]}}


def arena(name: str, rule: str, batch: int) -> dict[str, Any]:
    """The arena of a step with plain SGD, which holds no state of its own."""
    try:
        net = compiled(name, rule, "SGD", batch)
        with tempfile.TemporaryDirectory() as folder:
            path = net.export(Path(folder) / "step.pte", initial="", target=batch_of(name, 0, batch)[1])
            return {"arena": json.loads(path.with_suffix(".json").read_text("utf-8"))["arena"]}
    except altprop.CompileError as error:
        return {"refused": str(error)}


def main() -> None:
    """Measures what is asked for and not there yet, after each row writes what there is, and fills the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--rules", nargs="+", default=None)
    parser.add_argument("--optimizers", nargs="+", default=["momentum"], choices=list(OPTIMIZERS))
    parser.add_argument("--batches", nargs="+", type=int, default=list(ARENA_BATCHES))
    parser.add_argument("--arenas", action="store_true", help="measure arenas alone")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--engines", nargs="+", default=list(IN_TABLE), choices=list(ENGINES), help="the others stay")
    words = parser.parse_args()
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": {}, "arenas": {}}
    section, last = ("arenas", words.batches) if words.arenas else ("rows", words.optimizers)
    rules = words.rules or (ARENA_RULES if words.arenas else RULES)
    for key in [(name, rule, one) for name in words.nets for rule in rules for one in last]:
        label = ", ".join(map(str, key))
        if label not in kept[section] or words.again:
            made = arena(*key) if words.arenas else measure(*key, words.engines)
            kept[section][label] = joined(kept[section].get(label, {}), made)
            kept["machine"] = timing.machine()
            timing.save(RESULTS, kept)
            found = kept[section][label]
            print(label, found if words.arenas else {one: equal(found, one) for one in words.engines}, flush=True)
    page = ROOT / "docs" / "deploy.md"
    timing.replace_section(page, "step_files", f"{timing.measured_on(kept['machine'])}\n\n{table(kept['rows'])}")
    timing.replace_section(page, "pt2", f"{timing.measured_on(kept['machine'])}\n\n{other_table(kept['rows'])}")
    timing.replace_section(page, "arenas", arena_table(kept["arenas"]))
    timing.replace_section(page, "operators", where_table(kept["rows"]))


if __name__ == "__main__":
    main()
