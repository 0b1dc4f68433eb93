"""A schedule as files: each device's program in ONNX, and `schedule.json`, which says what goes from where to where.

A program that has to wait for other devices is several files, one a segment (`altprop.compiler.export.segments`).
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.compiler.export.check import load, verify
from altprop.compiler.export.contract import HELD, VERSION, describe, initial_state, input_names, metadata, output_names
from altprop.compiler.export.drawn import random_inputs
from altprop.compiler.export.onnx_file import MADE_BY, annotate, save
from altprop.compiler.export.reference import TOLERANCE, difference
from altprop.compiler.export.retrace import RATE, RATES, SEED, STEP, purify
from altprop.compiler.export.segments import Segment, SegmentBuilder, needed_later, segments
from altprop.compiler.export.state_file import save_state
from altprop.compiler.export.subject import Subject, constants_of, flat_program
from altprop.compiler.export.translate import translate
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot
from altprop.ir.schedule import Lowered, is_given
from altprop.ir.torch_private import FakeTensorMode
from altprop.ir.values import SCHEDULE

CONTRACT = "schedule.json"
Arrays = dict[str, np.ndarray]
Follow = Callable[[Mapping[Slot, torch.Tensor]], Mapping[Slot, torch.Tensor]]


def write_programs(subject: Subject, lowered: Lowered, folder: Path, follow: Follow) -> Path:
    """Writes the files of a schedule, all or nothing.

    Args:
        subject: what is exported.
        lowered: its schedule, with plain pieces.
        folder: where to; it is made.
        follow: runs a step by the schedule in torch, from the inputs, targets and states that it is given, as the
            optimizer's step number 4 at the rate `RATE`; returns the new states and the loss.

    Raises:
        ExportError: an operator has no form in ONNX, the model draws random numbers, or the files, run by onnxruntime
            one after another, do not do what torch does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mode = FakeTensorMode()
    parts = segments(lowered.schedule)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        draft = Path(temporary)
        states: dict[int, dict[str, torch.Tensor]] = {}
        entries: list[dict[str, Any]] = []
        for segment, later in zip(parts, needed_later(parts), strict=True):
            program = SegmentBuilder(lowered, mode).build(segment, later)
            number = sum(one["device"] == segment.device for one in entries)
            path = draft / f"device{segment.device}.{number}.onnx"
            entry, held = _write(subject, segment, program, mode, path)
            entries.append(entry)
            states[segment.device] = states.get(segment.device, {}) | held
        for device, held in states.items():
            save_state(held, draft / f"device{device}.npz")
        contract = _contract(lowered, entries, states)
        _check(subject, contract, draft, follow)
        (draft / CONTRACT).write_text(json.dumps(contract, indent=1) + "\n", "utf-8")
        for made in sorted(draft.iterdir()):
            os.replace(made, folder / made.name)
    return folder


def _write(
    subject: Subject, segment: Segment, program: Program, mode: FakeTensorMode, path: Path
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Writes a segment, compared with torch by itself; returns what the contract says of it, and its states."""
    pure = purify(program, mode, subject.optimizer if program.is_step else None, loops=True)
    if SEED in pure.inputs:
        raise ExportError(
            f"device {segment.device} draws random numbers, which files of several devices do not: set the "
            "probabilities of dropout to 0, or export the step of one device."
        )
    made = translate(pure, input_names(pure), output_names(pure), constants_of(subject, pure, None))
    contract = describe(subject, pure, "program", MADE_BY)
    annotate(made.model, metadata(subject, contract))
    save(made, path)
    check = verify(subject, program, made, path, batches=(1,))
    sent = [(task.region, task.peer) for task in segment.tasks if task.kind == "SEND"]
    entry = {
        "file": path.name,
        "device": segment.device,
        "inputs": [{"name": made.inputs[s], "value": s.name} for s in made.inputs if s.kind == "value"],
        "states": [{"name": made.inputs[s], "next": made.outputs.get(s)} for s in made.inputs if s.kind in HELD],
        "scalars": [made.inputs[s] for s in made.inputs if s.kind == "scalar"],
        "outputs": [{"name": made.outputs[s], "value": s.name} for s in made.outputs if s.kind == "value"],
        "send": [{"value": name, "to": peer} for name, peer in sent],
        "receive": sorted(segment.received),
        "difference": check.difference,
    }
    return entry, {name: value for name, value in initial_state(subject, pure).items() if name in made.inputs.values()}


def _contract(lowered: Lowered, entries: Sequence[Any], states: Mapping[int, Any]) -> dict[str, Any]:
    schedule = lowered.schedule
    values = {item["value"] for entry in entries for item in entry["inputs"] if is_given(item["value"])}
    given = [
        {"value": value, "microbatch": SCHEDULE.read(value).micro, "shape": list(schedule.form(value).shape)}
        for value in sorted(values)
    ]
    return {
        "format": "altprop programs",
        "version": VERSION,
        "devices": list(schedule.devices),
        "batch": schedule.batch,
        "microbatches": schedule.microbatches,
        "loss": {"values": "loss@", "factor": lowered.share},
        "initial": {str(device): f"device{device}.npz" for device in states},
        "given": given,
        "files": list(entries),
    }


def run_files(contract: Mapping[str, Any], sessions: Sequence[Any], states: Any, given: Arrays, scalars: Arrays) -> Any:
    """Runs one step by the files, one after another: what a host of one's own does, in NumPy.

    Args:
        contract: `schedule.json`.
        sessions: one for each of its files.
        states: by device, its states by name; they move.
        given: the values of `contract["given"]`.
        scalars: the learning rates.

    Returns:
        The loss.
    """
    values: list[Arrays] = [dict(given) for _ in contract["devices"]]
    losses = []
    for entry, session in zip(contract["files"], sessions, strict=True):
        here, held = values[entry["device"]], states[str(entry["device"])]
        feeds = {item["name"]: here[item["value"]] for item in entry["inputs"]}
        feeds |= {item["name"]: held[item["name"]] for item in entry["states"]}
        feeds |= {name: scalars[name] for name in entry["scalars"]}
        names = [output.name for output in session.get_outputs()]
        made = dict(zip(names, session.run(names, feeds), strict=True))
        here |= {item["value"]: made[item["name"]] for item in entry["outputs"]}
        held |= {item["name"]: made[item["next"]] for item in entry["states"] if item["next"]}
        for item in entry["send"]:
            values[item["to"]][item["value"]] = here[item["value"]]
        outputs = [item["value"] for item in entry["outputs"]]
        losses += [here[name] for name in outputs if name.startswith(contract["loss"]["values"])]
    return np.sum(losses) * contract["loss"]["factor"]


def _check(subject: Subject, contract: dict[str, Any], folder: Path, follow: Follow) -> None:
    """Runs all files on one random batch, and compares loss and states with a step in torch.

    Raises:
        ExportError: they differ.
    """
    tensors = random_inputs(subject, (flat_program(subject, "step", outputs=False),), contract["batch"])
    tensors |= {STEP: torch.tensor(3)}
    expected = follow(tensors)
    parts = contract["microbatches"]
    given = {}
    for item in contract["given"]:
        whole = tensors[SCHEDULE.read(item["value"]).slot]
        cut = whole.dim() and whole.shape[0] == contract["batch"] and item["shape"][0] * parts == contract["batch"]
        given[item["value"]] = (whole.chunk(parts)[item["microbatch"]] if cut else whole).numpy()
    slots = {_name(slot): slot for slot in tensors if slot.kind in HELD}
    wanted = {
        device: [s["name"] for f in contract["files"] if f["device"] == int(device) for s in f["states"]]
        for device in contract["initial"]
    }
    states = {device: {name: tensors[slots[name]].numpy() for name in names} for device, names in wanted.items()}
    scalars = {rate.name: np.array(RATE, np.float32) for rate in RATES}
    sessions = [load(folder / entry["file"]) for entry in contract["files"]]
    loss = run_files(contract, sessions, states, given, scalars)
    gaps = {"loss": difference(expected[Slot("loss", "loss")], np.asarray(loss, np.float32))}
    for device, held in states.items():
        moved = [name for name in held if slots[name] != STEP]
        gaps |= {f"{name} of device {device}": difference(expected[slots[name]], held[name]) for name in moved}
    where = max(gaps, key=lambda name: gaps[name])
    contract["difference"] = gaps[where]
    if not gaps[where] <= TOLERANCE:
        raise ExportError(
            f"the files, run one after another, give another {where} than torch, by {gaps[where]:.1e} (allowed "
            f"{TOLERANCE:.0e}). Nothing was written. Run the schedule in torch, schedule.runtime(), or report it."
        )


def _name(slot: Slot) -> str:
    return f"{slot.kind}.{slot.name}" if slot.kind in ("feedback", "state") else slot.name
