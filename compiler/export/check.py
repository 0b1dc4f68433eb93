"""Runs a file with onnxruntime and compares it with torch, before the file is kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import fx

from altprop.compiler.export.drawn import batches_of, random_inputs
from altprop.compiler.export.emitter import value_info
from altprop.compiler.export.reference import DRAWS, TOLERANCE, difference, reference
from altprop.compiler.export.retrace import region_of
from altprop.compiler.export.subject import Subject, region_of_slot
from altprop.compiler.export.translate import Translated
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found: the largest difference, and the batches that were run."""

    difference: float
    batches: tuple[int, ...]


def verify(
    subject: Subject,
    original: Program,
    made: Translated,
    path: Path | bytes,
    batches: Sequence[int] = (),
) -> Check:
    """Compares a file with torch.

    Args:
        subject: what is exported.
        original: the flat program before it was made pure.
        made: the program in ONNX, and its names.
        path: the file, or what would be in it.
        batches: how many samples to draw; by default two numbers, or the one that the model fixes.

    Raises:
        ExportError: onnxruntime cannot load it, or a result differs; names the first region that does.
    """
    session = load(path)
    batches = batches or batches_of(subject)
    worst = 0.0
    for size in batches:
        for draw in range(DRAWS):
            given = random_inputs(subject, (original, made.program), size, draw)
            found, slot = _compare(subject, original, made, session, given)
            if found <= TOLERANCE:
                break
        else:
            raise ExportError(_sentence(subject, made, given, slot, found, size))
        worst = max(worst, found)
    return Check(worst, tuple(batches))


def _compare(
    subject: Subject, original: Program, made: Translated, session: Any, given: Mapping[Slot, torch.Tensor]
) -> tuple[float, Slot]:
    """The difference of the first result that is too far off, else of the one that is farthest."""
    expected = reference(subject, original, given)
    gaps = [(difference(expected[slot], actual), slot) for slot, actual in run(session, made, given).items()]
    wrong = [gap for gap in gaps if not gap[0] <= TOLERANCE]
    return wrong[0] if wrong else max(gaps, key=lambda gap: gap[0])


def load(path: Path | bytes) -> Any:
    """Opens a file with onnxruntime on the CPU.

    Raises:
        ExportError: it refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        source = path if isinstance(path, bytes) else str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class of their own that is public
        first = " ".join(str(error).split())[:300]
        raise ExportError(
            f"onnxruntime does not take the file: {first}; a model in float32 (model.float()) has the most operators."
        ) from error


def run(session: Any, made: Translated, given: Mapping[Slot, torch.Tensor]) -> dict[Slot, np.ndarray]:
    """Runs a file on tensors; returns its results."""
    wanted = {item.name for item in session.get_inputs()}
    feeds = {made.inputs[s]: v.numpy() for s, v in given.items() if made.inputs.get(s) in wanted}
    return dict(zip(made.outputs, session.run(list(made.outputs.values()), feeds), strict=True))


def _sentence(
    subject: Subject, made: Translated, given: Mapping[Slot, torch.Tensor], slot: Slot, found: float, batch: int
) -> str:
    where = _first_different(made, given) or region_of_slot(subject, slot)
    return (
        f'the file gives another "{made.outputs[slot]}" than torch, by {found:.1e} (allowed {TOLERANCE:.0e}) at a '
        f"batch of {batch}; the first to differ is {where}. Nothing was written. "
        "Train it in torch, or report the operator."
    )


def _first_different(made: Translated, given: Mapping[Slot, torch.Tensor]) -> str | None:
    """Compares every value inside; says which is the first to differ, in which region."""
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    known = {item.name for item in [*model.graph.input, *model.graph.output, *model.graph.initializer]}
    watched = {node: name for node, name in made.values.items() if node.op == "call_function" and name not in known}
    for name, node in {name: node for node, name in watched.items()}.items():
        model.graph.output.append(value_info(name, node.meta["val"]))
    # A model that is no file has no file beside it.
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in made.apart]:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        model.graph.initializer.remove(tensor)
    try:
        session = load(model.SerializeToString())
    except ExportError:
        return None
    wanted = {item.name for item in session.get_inputs()}
    feeds = {made.inputs[s]: v.numpy() for s, v in given.items() if made.inputs.get(s) in wanted}
    feeds |= {name: value.numpy() for name, value in made.apart.items() if name in wanted}
    names = list(dict.fromkeys(watched.values()))
    actual = dict(zip(names, session.run(names, feeds), strict=True))
    runner = fx.Interpreter(made.program.graph, garbage_collect_values=False)
    with torch.no_grad():
        runner.run(*(given[slot] for slot in made.program.inputs), enable_io_processing=False)
    for node, name in watched.items():
        if not difference(runner.env[node], actual[name]) <= TOLERANCE:
            return f"{region_of(node)}, operator {node.target}"
    return None
