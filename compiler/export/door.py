"""`net.export` for files that run: checks what is asked for, and calls the writer."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from altprop.compiler.export.subject import Subject, flat_program, on_cpu
from altprop.ir.errors import ExportError
from altprop.ir.learner_operators import learners_of, refuse_learners
from altprop.ir.schedule import Lowered
from altprop.ir.session import SessionProgram

WHAT = ("step", "backward", "forward", "update")


def export(subject: Subject, path: Path, what: str = "step", **options: Any) -> Path:
    """Writes a program of a compiled model.

    Args:
        subject: what is exported.
        path: a file that ends in `.onnx`, `.pte` or `.pt2`.
        what: "step": forward, errors, updates and the optimizer, state in and state out; "backward": the same without
            the optimizer, updates out; "forward": the model in evaluation mode, its weights in the file; "update":
            one file for each region, named `path` with the region's name before the suffix.
        options: `initial`, and `external_data` of an ONNX file or `batch` and `delegate` of one for ExecuTorch, as in
            `write_program`; `errors`, whether a step also gives the size of each region's error.

    Raises:
        ExportError: says what cannot be exported, where, and the way out.
    """
    if what not in WHAT:
        raise ExportError(f'what="{what}": there are {", ".join(WHAT)}.')
    if what == "step" and subject.optimizer is None:
        raise ExportError(
            'what="step" needs an optimizer inside the program: altprop.compile(..., optimizer=...); '
            'what="backward" gives the updates instead.'
        )
    _check_learners(subject, path, what)
    _check_device(subject)
    if path.suffix == ".pt2":
        from altprop.compiler.export.pt2_file import write_pt2

        return write_pt2(subject, path, what, **options)
    return _writer(path.suffix, what)(subject, path, **options)


def make_session(subject: Subject) -> SessionProgram:
    """Returns the step of a compiled model for a session in this process, compared with torch.

    The comparison is made on the CPU, also for a net on another device.

    Raises:
        ExportError: an operator has no form in ONNX, or onnxruntime does not do what torch does.
    """
    _check_types(subject)
    _check_installed()
    from altprop.compiler.export.check import verify
    from altprop.compiler.export.onnx_file import as_model

    original = on_cpu(flat_program(subject, "step", outputs=False))
    made = as_model(subject, original)
    model = made.model.SerializeToString()
    verify(subject, original, made, model)
    return SessionProgram(model, made.inputs, made.outputs)


def export_programs(subject: Subject, lowered: Lowered, folder: Path, follow: Callable[..., Any]) -> Path:
    """Writes the program of each device of a schedule; see `altprop.compiler.export.programs`.

    Raises:
        ExportError: says what cannot be exported, where, and the way out.
    """
    _check_device(subject)
    _check_installed()
    from altprop.compiler.export.programs import write_programs

    return write_programs(subject, lowered, folder, follow)


def _check_learners(subject: Subject, path: Path, what: str) -> None:
    """The forward of an ONNX file holds what learners predict now, where that is made of torch's operators."""
    if what != "forward" or path.suffix != ".onnx":
        refuse_learners(subject.derived.regions, f"a {path.suffix} file of a {what}", ExportError)
    outside = {name: one for name, one in learners_of(subject.model).items() if not one.in_operators}
    for name, learner in outside.items():
        raise ExportError(
            f"{name} ({type(learner).__name__}) predicts outside of torch, so no file can hold it: put a learner of "
            "tensors in its place, such as altprop.learners.Forest."
        )


def _check_device(subject: Subject) -> None:
    away = [name for name, p in subject.model.named_parameters() if p.device.type != "cpu"]
    if away:
        raise ExportError(f"{away[0]} is not on the CPU, where files are made: move the net there, net.cpu(), first.")
    _check_types(subject)


def _check_types(subject: Subject) -> None:
    odd = [n for n, p in subject.model.named_parameters() if p.dtype not in (torch.float32, torch.float64)]
    if odd:
        dtype = subject.model.get_parameter(odd[0]).dtype
        raise ExportError(f"{odd[0]} is {dtype}: files are made in float32; convert the model, such as model.float().")


def _check_installed() -> None:
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ExportError(f'".onnx" needs the package {package}: pip install "altprop[onnx]".')


def _writer(suffix: str, what: str) -> Callable[..., Path]:
    """Returns what writes a program of a kind in a format."""
    from altprop.compiler.export.forward import write_forward
    from altprop.compiler.export.regions import write_updates

    write = _format(suffix)
    if what in ("forward", "update"):
        return functools.partial(write_forward if what == "forward" else write_updates, write)

    def trained(subject: Subject, path: Path, errors: bool = False, **options: Any) -> Path:
        if not subject.derived.updates:
            raise ExportError(f'what="{what}": nothing of the model is trained; what="forward" exports it.')
        return write(subject, flat_program(subject, what, errors), path, what, **options)

    return trained


def _format(suffix: str) -> Callable[..., Path]:
    """Returns what writes a flat program in a format."""
    if suffix == ".pte":
        from altprop.compiler.export.pte_file import write_program as write_pte

        return write_pte
    _check_installed()
    from altprop.compiler.export.onnx_file import write_program as write_onnx

    return write_onnx
