"""The update of each region as a file of its own: what reads its error and moves its parameters."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from altprop.compiler.export.subject import ALL_SIZES, Subject
from altprop.ir.errors import ExportError
from altprop.ir.graph import ErrorGraph
from altprop.ir.program import Program, Slot
from altprop.ir.updates import LocalUpdate, Value
from altprop.passes.flattening.builder import FlatBuilder


def write_updates(write: Callable[..., Path], subject: Subject, path: Path, **options: Any) -> Path:
    """Writes one file for each region with `write`, which writes a program in a format; returns the folder.

    Inputs are what the forward made of the batch (`forward.<region>.<value>`), errors of other regions
    (`error.<region>`), the gradient of the summed loss at the output, and feedback. Results are the region's error
    and the updates of its parameters, summed over samples.

    Raises:
        ExportError: they would not serve batches of all sizes.
    """
    options.pop("initial", None)
    if subject.derived.captured.is_dynamic:
        subject.facts.refuse(ALL_SIZES, ExportError)
    for update in subject.derived.updates.values():
        name = re.sub(r"[^\w.@-]", "_", update.region)
        program = region_program(subject.derived, update)
        file = path.with_name(f"{path.stem}.{name}{path.suffix}")
        write(subject, program, file, "update", initial="", **options)
    return path.parent


def region_program(graph: ErrorGraph, update: LocalUpdate) -> Program:
    """Returns the update of one region as a flat program."""
    builder = FlatBuilder(graph)
    fakes = {node.name: node.meta.get("val") for node in update.graph.nodes if node.op == "placeholder"}
    for name, key in update.inputs.items():
        if key not in builder.values:
            builder.values[key] = builder.placeholder(Slot("value", place(key)), "value", fakes[name])
    builder.update(update)
    for value in update.results:
        builder.result(_slot(value), builder.values[value])
    return builder.finish("update")


def place(key: Value) -> str:
    """Names a value: its kind, its region, its node."""
    return ".".join(key)


def _slot(value: Value) -> Slot:
    if value[0] == "gradient":
        return Slot("gradient", value[2])
    if value[0] in ("error", "feedback_gradient"):
        return Slot(value[0], value[1])
    return Slot("value", place(value))
