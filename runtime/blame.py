"""Says in a sentence what a batch holds that a program cannot run on.

Values are looked at after a program failed, never before: on an accelerator that would cost a wait at every step. There
an index out of range is torch's device-side assertion, which no program survives.
"""

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import fx

from altprop.ir.errors import CompileError
from altprop.ir.program import Program, Slot
from altprop.runtime.variant import Call, Variant

aten = torch.ops.aten


@contextlib.contextmanager
def blame_the_batch(variant: Variant, name: str, call: Call) -> Iterator[None]:
    """Turns torch's complaint about an index out of range into a sentence.

    Args:
        variant: whose program runs.
        name: of the program.
        call: what it runs on.

    Raises:
        CompileError: says which value is wrong, and what would be right.
    """
    try:
        yield
    except IndexError as error:
        raise blame(variant, name, call, error) from error


def blame(variant: Variant, name: str, call: Call, error: IndexError) -> CompileError:
    """Returns torch's complaint about an index out of range as a sentence; for the arguments see `blame_the_batch`."""
    program = variant.compiled.graph.programs[name]
    reason = _wrong_class(variant, str(error)) or _wrong_index(program, variant, call) or str(error)
    return CompileError(f"the batch does not fit the model: {reason}")


def _wrong_class(variant: Variant, message: str) -> str:
    """Names a class that the output does not have."""
    found = re.match(r"Target (-?\d+) is out of bounds", message)
    if found is None:
        return ""
    captured, loss = variant.compiled.graph.captured, variant.compiled.observer.loss
    output = next(v for v in map(captured.value, filter(None, captured.outputs)) if v.is_floating_point())
    classes = int(output.shape[loss.feature_dim(output.dim())])
    return (
        f"the target holds the class {found[1]}, and the output has scores of {classes} classes, 0 to {classes - 1}. "
        "Give the model as many outputs as there are classes; samples to be left out are marked -100."
    )


def _wrong_index(program: Program, variant: Variant, call: Call) -> str:
    """Names an input that holds a row which an embedding does not have."""
    given = variant.given(call)
    slots = dict(zip([n for n in program.graph.graph.nodes if n.op == "placeholder"], program.inputs, strict=True))
    for node in program.graph.graph.nodes:
        if node.target is not aten.embedding.default:
            continue
        table, indices = (slots.get(arg) if isinstance(arg, fx.Node) else None for arg in node.args[:2])
        rows = int(node.args[0].meta["val"].shape[0])
        value = given.get(indices) if isinstance(indices, Slot) else None
        if isinstance(value, torch.Tensor) and isinstance(table, Slot):
            wrong = value[(value < 0) | (value >= rows)]
            if len(wrong):
                return f"{indices.name} holds {int(wrong[0])}, and {table.name} has the rows 0 to {rows - 1}."
    return ""
