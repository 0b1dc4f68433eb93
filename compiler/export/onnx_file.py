"""Writes ONNX files: the model, its contract as JSON, and its initial state, all or nothing."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch

from altprop.compiler.export.check import verify
from altprop.compiler.export.contract import describe, initial_state, input_names, metadata, output_names
from altprop.compiler.export.emitter import OPSET
from altprop.compiler.export.operators.blocked import block_size
from altprop.compiler.export.retrace import purify
from altprop.compiler.export.state_file import save_state
from altprop.compiler.export.subject import Subject, cleaned, constants_of
from altprop.compiler.export.translate import Translated, translate
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

# What one protobuf message may hold, less some room for the graph itself.
MESSAGE_LIMIT = 2**31 - 2**24
PAGE = 4096  # a reader may map tensors into memory that begin at a page
MADE_BY = {"onnx": onnx.__version__, "opset": OPSET}


def write_program(
    subject: Subject,
    original: Program,
    path: Path,
    what: str,
    initial: str = ".npz",
    external_data: bool | None = None,
    fixed: Mapping[Slot, torch.Tensor] | None = None,
) -> Path:
    """Writes one flat program.

    Args:
        subject: what is exported.
        original: the flat program.
        path: the file.
        what: what the contract calls it.
        initial: suffix of the file with the initial state, ".npz", ".safetensors", or "" for none.
        external_data: whether the tensors that the caller fixes go into a file beside it; None if they have over 2 GB.
        fixed: inputs whose values go into the file.

    Raises:
        ExportError: an operator has no form in ONNX, or the file does not do what torch does.
    """
    optimizer = subject.optimizer if original.is_step else None
    pure = purify(cleaned(subject, original), subject.fake_mode, optimizer, loops=True)
    constants = constants_of(subject, pure, fixed)
    if external_data is None:
        external_data = sum(value.nbytes for value in constants.values()) > MESSAGE_LIMIT
    made = translate(pure, input_names(pure), output_names(pure), constants, apart=external_data)
    contract = describe(subject, pure, what, MADE_BY, constants)
    state = initial_state(subject, pure) if initial else {}
    if initial:
        contract["initial"] = path.with_suffix(initial).name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / path.name
        annotate(made.model, metadata(subject, contract))
        save(made, draft)
        check = verify(subject, original, made, draft)
        contract["checked"] = {"batches": list(check.batches), "difference": check.difference}
        draft.with_suffix(".json").write_text(json.dumps(contract, indent=1) + "\n", "utf-8")
        if initial:
            save_state(state, draft.with_suffix(initial))
        for made_file in sorted(Path(folder).iterdir()):
            os.replace(made_file, path.parent / made_file.name)
    return path


def annotate(model: onnx.ModelProto, texts: Mapping[str, str]) -> None:
    """Puts texts into the file's metadata."""
    for key, text in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text


def save(made: Translated, path: Path) -> None:
    """Writes a model, and beside it the tensors that stayed apart.

    Raises:
        ExportError: the checker refuses it.
    """
    if made.apart:
        _write_apart(made, path.with_name(f"{path.name}.data"))
    onnx.save_model(made.model, str(path))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"the ONNX checker refuses the file: {reason}") from error


def _write_apart(made: Translated, path: Path) -> None:
    """Writes tensors one behind another, each from a page's beginning, and their places into the model."""
    places = {tensor.name: tensor for tensor in made.model.graph.initializer}
    with path.open("wb") as file:
        for name, value in made.apart.items():
            file.seek(-file.tell() % PAGE, os.SEEK_CUR)
            entries = {"location": path.name, "offset": str(file.tell()), "length": str(value.nbytes)}
            value.numpy().tofile(file)
            for key, text in entries.items():
                places[name].external_data.add(key=key, value=text)


def as_model(subject: Subject, original: Program) -> Translated:
    """Returns one flat program in ONNX, unchecked and unsaved: what a session in this process runs."""
    optimizer = subject.optimizer if original.is_step else None
    pure = purify(cleaned(subject, original), subject.fake_mode, optimizer, loops=True)
    block = block_size() if subject.device.type == "cpu" else 0
    return translate(pure, input_names(pure), output_names(pure), constants_of(subject, pure, None), block)
