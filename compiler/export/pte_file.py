"""Writes programs for ExecuTorch: the program, its contract as JSON, and its initial state, all or nothing."""

import importlib.metadata
import importlib.util
import json
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from altprop.compiler.export.contract import describe, initial_state
from altprop.compiler.export.decompose.planar import planar_table, where_moved
from altprop.compiler.export.drawn import random_inputs
from altprop.compiler.export.pte_check import verify
from altprop.compiler.export.pte_lower import DELEGATES, LoweredProgram, lower
from altprop.compiler.export.retrace import purify
from altprop.compiler.export.state_file import save_state
from altprop.compiler.export.subject import Subject, cleaned, constants_of
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

NEEDED = ("executorch", "ruamel.yaml", "tabulate", "pandas")


def write_program(
    subject: Subject,
    original: Program,
    path: Path,
    what: str,
    initial: str = ".npz",
    fixed: Mapping[Slot, torch.Tensor] | None = None,
    batch: int | None = None,
    delegate: str = "",
) -> Path:
    """Writes one flat program.

    Args:
        subject: what is exported.
        original: the flat program.
        path: the file.
        what: what the contract calls it.
        initial: suffix of the file with the initial state, ".npz", ".safetensors", or "" for none.
        fixed: inputs whose values go into the file.
        batch: how many samples it takes; None: as many as the example inputs.
        delegate: "xnnpack", which then runs what it takes, or "" for ExecuTorch's own kernels alone.

    Raises:
        ExportError: an operator has no form in ExecuTorch, or the file does not do what torch does.
    """
    if delegate not in DELEGATES:
        raise ExportError(f'delegate="{delegate}": there are {", ".join(map(repr, DELEGATES))}.')
    refuse_double(subject)
    check_installed(delegate)
    size = batch_of(subject, batch)
    optimizer = subject.optimizer if original.is_step else None
    pure = purify(cleaned(subject, original), subject.fake_mode, optimizer, planar_table(), place=where_moved)
    constants = constants_of(subject, pure, fixed)
    given = random_inputs(subject, (original, pure), size)
    made = lower(pure, constants, given, delegate)
    found = verify(subject, original, made, constants, size)
    contract = _contract(subject, made, what, size, constants) | {"checked": {"batches": [size], "difference": found}}
    if initial:
        contract["initial"] = path.with_suffix(initial).name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / path.name
        draft.write_bytes(made.buffer)
        draft.with_suffix(".json").write_text(json.dumps(contract, indent=1) + "\n", "utf-8")
        if initial:
            save_state(initial_state(subject, pure), draft.with_suffix(initial))
        for made_file in sorted(Path(folder).iterdir()):
            os.replace(made_file, path.parent / made_file.name)
    return path


def batch_of(subject: Subject, wanted: int | None) -> int:
    """Returns how many samples a file takes.

    Raises:
        ExportError: the model fixes another number, or it is none.
    """
    batch = subject.derived.captured.batch
    if not isinstance(batch, torch.SymInt):
        if wanted not in (None, int(batch)):
            raise ExportError(f"batch={wanted!r}: the model fixes {int(batch)} samples.")
        return int(batch)
    if wanted is None:
        return next(int(value.shape[0]) for value in subject.example if isinstance(value, torch.Tensor) and value.dim())
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ExportError(f"batch={wanted!r}: how many samples the file takes is a whole number above 0.")
    return wanted


def refuse_double(subject: Subject) -> None:
    """Refuses models in float64: the runtime's kernels for the softmax of a loss, among others, fail without a reason.

    Raises:
        ExportError: names the first parameter in float64.
    """
    for name, parameter in subject.model.named_parameters():
        if parameter.dtype == torch.float64:
            raise ExportError(
                f"{name} is {parameter.dtype}, which not all of ExecuTorch's kernels take: convert the model, "
                'model.float(), or train by another file: ".pt2" takes it, and so does ".onnx" without convolutions.'
            )


def is_installed() -> bool:
    """Whether ExecuTorch can be imported."""
    return all(map(_found, NEEDED))


def check_installed(delegate: str) -> None:
    """Checks that ExecuTorch can be imported.

    Raises:
        ExportError: names the package that is missing.
    """
    needed = [*NEEDED, *(["torchao"] if delegate == "xnnpack" else [])]
    for package in needed:
        if not _found(package):
            raise ExportError(f'".pte" needs the package {package}: pip install "altprop[executorch]".')


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _contract(subject: Subject, made: LoweredProgram, what: str, size: int, inside: Collection[Slot]) -> dict[str, Any]:
    versions = {"executorch": importlib.metadata.version("executorch")}
    contract = describe(subject, made.program, what, versions, inside)
    return contract | {
        "batch": size,
        "takes": list(made.takes.values()),
        "gives": list(made.gives.values()),
        "arena": made.arena,
        "operators": made.operators,
    }
