"""The contract of a file: the name, part, type and shape of every input and output, as data.

A *state* is an input whose new value comes out under the same name with `.next`, to be put in at the next step. Names
are the model's own keys; those of feedback begin with `feedback.`, those of the optimizer with `state.`.
"""

import importlib.metadata
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from altprop.compiler.export.numbers import numpy_type
from altprop.compiler.export.retrace import SEED, STEP
from altprop.compiler.export.subject import Subject
from altprop.ir.errors import ExportError
from altprop.ir.plan import FROZEN
from altprop.ir.program import Program, Slot
from altprop.ir.values import FILE, ValueName

VERSION = 1
NEXT = ".next"
HELD = ("parameter", "buffer", "feedback", "state")

MEANINGS = {
    "lr": "learning rate of the model's parameters; may change from step to step",
    "feedback_lr": "learning rate of learned feedback; may change from step to step",
    "seed": "seed of the random numbers; with the same seed and step they repeat",
}


FOLLOWS = "; the net itself takes lr here too, so change both"


def input_names(program: Program) -> dict[Slot, str]:
    """Names the inputs.

    Raises:
        ExportError: two inputs would have one name.
    """
    targets = sum(slot.kind == "target" for slot in program.inputs)
    names = {slot: _input_name(slot, targets) for slot in program.inputs}
    taken = {name for slot, name in names.items() if slot.kind != "input"}
    names |= {s: f"input.{n}" for s, n in names.items() if s.kind == "input" and n in taken}
    if len(set(names.values())) < len(names):
        double = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise ExportError(f'two inputs of the file would be called "{double}": rename the parameter of that name.')
    return names


def _input_name(slot: Slot, targets: int) -> str:
    if slot.kind == "target":
        return "target" if targets == 1 else f"target.{slot.name}"
    return FILE.write(ValueName.of(slot))


def output_names(program: Program) -> dict[Slot, str]:
    """Names the results."""
    outputs = [slot for slot in program.outputs if slot.kind == "output"]
    plain = {slot: _output_name(slot, outputs) for slot in program.outputs}
    taken = set(input_names(program).values())
    return {slot: f"output.{name}" if name in taken else name for slot, name in plain.items()}


def _output_name(slot: Slot, outputs: Sequence[Slot]) -> str:
    if slot.kind in HELD:
        return _input_name(slot, 1) + NEXT
    if slot.kind == "output":
        return "prediction" if len(outputs) == 1 else f"prediction.{outputs.index(slot)}"
    if slot.kind in ("gradient", "feedback_gradient"):
        return ("feedback." if slot.kind == "feedback_gradient" else "") + slot.name + ".grad"
    return f"error.{slot.name}" if slot.kind == "error" else slot.name


def describe(
    subject: Subject, program: Program, what: str, made_by: Mapping[str, Any], inside: Collection[Slot] = ()
) -> dict[str, Any]:
    """Returns the contract of a pure program, ready for JSON.

    Args:
        subject: what is exported.
        program: a pure program.
        what: what it does.
        made_by: the versions of what wrote the file.
        inside: inputs whose values are in the file, so that nobody puts them in.
    """
    names, results = input_names(program), output_names(program)
    values = program.placeholders
    states = [
        _head(names[slot], slot.kind, values[slot].meta["val"])
        | {"next": results.get(slot), "state_dict": _kept_as(subject, slot)}
        for slot in program.inputs
        if slot.kind in HELD and slot not in inside
    ]
    heads = [
        _head(names[slot], slot.kind, values[slot].meta["val"])
        for slot in program.inputs
        if slot.kind not in (*HELD, "scalar", "constant")
    ]
    tails = [_head(results[s], s.kind, n.meta["val"]) for s, n in program.results.items() if s.kind not in HELD]
    numbers = [_scalar(subject, slot) for slot in program.inputs if slot.kind == "scalar"]
    return _header(subject, what, made_by) | {"inputs": heads, "scalars": numbers, "states": states, "outputs": tails}


def _kept_as(subject: Subject, slot: Slot) -> str | None:
    """The key of a state in `net.state_dict()`; None of a buffer that the model does not keep there."""
    key = subject.key(slot)
    return None if slot.kind == "buffer" and key not in subject.state else key


def _header(subject: Subject, what: str, made_by: Mapping[str, Any]) -> dict[str, Any]:
    optimizer = subject.optimizer
    return {
        "format": f"altprop {what}",
        "version": VERSION,
        "rule": ", ".join(f"{glob}: {rule or FROZEN}" for glob, rule in subject.options.rules.items()),
        "loss": subject.options.loss.name,
        "optimizer": None if optimizer is None or what != "step" else repr(optimizer),
        "batch": "dynamic" if isinstance(subject.derived.captured.batch, torch.SymInt) else "fixed",
        "made_by": {
            "altprop": _own_version(),
            "torch": torch.__version__,
            **made_by,
        },
    }


def _own_version() -> str:
    """The version that is installed; a checkout that is not installed, but found on the path, has none."""
    try:
        return importlib.metadata.version("altprop")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _head(name: str, kind: str, value: torch.Tensor) -> dict[str, Any]:
    shape = [int(size) if not isinstance(size, torch.SymInt) else str(size) for size in value.shape]
    symbols = sorted({str(s) for size in value.shape if isinstance(size, torch.SymInt) for s in _symbols(size)})
    for symbol in symbols:
        shape = [size.replace(symbol, "batch") if isinstance(size, str) else size for size in shape]
    part = {"output": "prediction", "state": "optimizer"}.get(kind, kind)
    return {"name": name, "part": part, "dtype": np.dtype(numpy_type(value.dtype)).name, "shape": shape}


def _symbols(size: Any) -> Iterable[Any]:
    """The symbols of a size that depends on the batch."""
    found: Iterable[Any] = size.node.expr.free_symbols
    return found


def _scalar(subject: Subject, slot: Slot) -> dict[str, Any]:
    optimizer = subject.optimizer
    if slot == SEED:
        return {"name": "seed", "dtype": "int64", "default": 0, "meaning": MEANINGS["seed"]}
    assert optimizer is not None
    follows = slot.name == "feedback_lr" and optimizer.feedback_lr is None
    rate = optimizer.lr if follows or slot.name == "lr" else optimizer.feedback_lr
    meaning = MEANINGS[slot.name] + (FOLLOWS if follows else "")
    return {"name": slot.name, "dtype": "float32", "default": rate, "meaning": meaning}


def metadata(subject: Subject, contract: Mapping[str, Any]) -> dict[str, str]:
    """Returns what goes into the file itself: the contract, the rule and the wiring plan."""
    plan = subject.derived.plan
    texts = {"altprop.contract": json.dumps(contract), "altprop.rule": str(contract["rule"])}
    return texts if plan is None else texts | {"altprop.plan": str(plan)}


def initial_state(subject: Subject, program: Program) -> dict[str, torch.Tensor]:
    """Returns the present value of every state, by its name in the file.

    What `net.state_dict()` holds beside them comes too, under its key there, so that nothing is lost on the way back.
    """
    names = input_names(program)
    held = [slot for slot in program.inputs if slot.kind in HELD]
    values = {names[slot]: _present(subject, slot) for slot in held}
    used = {subject.key(slot) for slot in held}
    rest = {key: value for key, value in subject.state.items() if key not in used and isinstance(value, torch.Tensor)}
    return {name: value.detach().cpu().contiguous().clone() for name, value in {**values, **rest}.items()}


def _present(subject: Subject, slot: Slot) -> torch.Tensor:
    return subject.state[subject.key(slot)] if slot == STEP else subject.lookup(slot)
