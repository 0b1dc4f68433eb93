"""Runs a program in ExecuTorch and compares it with torch, before its file is kept."""

from collections.abc import Mapping

import torch
from torch import fx

from altprop.compiler.export.drawn import random_inputs
from altprop.compiler.export.pte_lower import WAYS_OUT, LoweredProgram, lower
from altprop.compiler.export.pte_run import PteRunner, RunError
from altprop.compiler.export.reference import DRAWS, TOLERANCE, difference, reference
from altprop.compiler.export.retrace import region_of
from altprop.compiler.export.subject import Subject, region_of_slot
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot

Tensors = Mapping[Slot, torch.Tensor]


def verify(subject: Subject, original: Program, made: LoweredProgram, constants: Tensors, batch: int) -> float:
    """Compares a program with torch on random inputs.

    Args:
        subject: what is exported.
        original: the flat program before it was made pure.
        made: the program for ExecuTorch.
        constants: what is in the file.
        batch: how many samples it takes.

    Returns:
        The largest difference.

    Raises:
        ExportError: the runtime fails, or a result differs; names the region and the operator.
    """
    runner = PteRunner(made.buffer)
    for draw in range(DRAWS):
        given = random_inputs(subject, (original, made.program), batch, draw)
        expected = reference(subject, original, given)
        results = _run(runner, made, given)
        gaps = {slot: difference(expected[slot], value.numpy()) for slot, value in results.items()}
        wrong = [slot for slot, gap in gaps.items() if not gap <= TOLERANCE]
        if not wrong:
            return max(gaps.values(), default=0.0)
    where = _first_different(made, constants, given) or region_of_slot(subject, wrong[0])
    raise ExportError(
        f'the file gives another "{made.gives[wrong[0]]}" than torch, by {gaps[wrong[0]]:.1e} (allowed '
        f"{TOLERANCE:.0e}); the first to differ is {where}. "
        "Nothing was written. Train it by another file, or report the operator."
    )


def _run(runner: PteRunner, made: LoweredProgram, given: Tensors) -> dict[Slot, torch.Tensor]:
    try:
        return dict(zip(made.gives, runner([given[slot] for slot in made.takes]), strict=True))
    except RunError as error:
        where = " and ".join(made.regions.get(error.operator, ["the program"]))
        name = f"the operator {error.operator}" if error.operator else "an operator"
        reason = f" ({error})" if str(error) else ""
        raise ExportError(f"{where}: {name} fails in ExecuTorch's runtime{reason}; {WAYS_OUT}.") from error


def _first_different(made: LoweredProgram, constants: Tensors, given: Tensors) -> str | None:
    """Compares every value inside; says which is the first to differ, in which region."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(made.program.graph.graph, copies)
    watched = {
        node: copy
        for node, copy in copies.items()
        if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)
    }
    graph.output(tuple(watched.values()))
    slots = tuple(Slot("value", node.name) for node in watched)
    program = Program("watched", fx.GraphModule(made.program.graph, graph), made.program.inputs, slots)
    runner = fx.Interpreter(made.program.graph, garbage_collect_values=False)
    try:
        with torch.no_grad():
            runner.run(*(given[slot] for slot in made.program.inputs), enable_io_processing=False)
        actual = PteRunner(lower(program, constants, given, "").buffer)([given[slot] for slot in made.takes])
    except (ExportError, RunError):
        return None
    for node, value in zip(watched, actual, strict=True):
        if not difference(runner.env[node], value.numpy()) <= TOLERANCE:
            return f"{region_of(node)}, operator {node.target}"
    return None
