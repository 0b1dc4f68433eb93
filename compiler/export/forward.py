"""The model's forward alone, as it runs after training: evaluation mode, weights in the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from altprop.compiler.capture.capture import capture
from altprop.compiler.capture.quiet import quiet
from altprop.compiler.export.subject import ALL_SIZES, Subject
from altprop.ir.errors import ExportError
from altprop.ir.graph import ErrorGraph
from altprop.ir.graph_parts import Cut, Planned
from altprop.ir.learner_operators import opened
from altprop.ir.program import Program, Slot
from altprop.passes.flattening.builder import FlatBuilder


def write_forward(write: Callable[..., Path], subject: Subject, path: Path, **options: Any) -> Path:
    """Writes the model's forward; `write` writes a program in a format."""
    training = [module.training for module in subject.model.modules()]
    subject.model.eval()
    try:
        args, kwargs = subject.example_args
        with quiet(), torch.no_grad(), opened():
            captured = capture(subject.model, args, kwargs)
            if captured.is_dynamic:
                captured.facts.refuse(ALL_SIZES, ExportError)
    finally:
        for module, mode in zip(subject.model.modules(), training, strict=True):
            module.training = mode
    graph = ErrorGraph(captured).gain(Cut((), tuple(_operators(captured.graph)))).gain(Planned(subject.derived.plan))
    here = _with(subject, graph)
    program = _program(graph)
    fixed = {slot: here.lookup(slot) for slot in program.inputs if slot.kind != "input"}
    options.pop("initial", None)
    return write(here, program, path, "forward", initial="", fixed=fixed, **options)


def _operators(graph: Any) -> list[str]:
    return [node.name for node in graph.nodes if node.op == "call_function"]


def _program(graph: ErrorGraph) -> Program:
    builder = FlatBuilder(graph)
    builder.preamble()
    builder.outputs()
    return builder.finish("forward")


def _with(subject: Subject, graph: ErrorGraph) -> Subject:
    import dataclasses

    constants = graph.captured.constants

    def lookup(slot: Slot) -> torch.Tensor:
        return constants[slot.name] if slot.kind == "constant" else subject.lookup(slot)

    return dataclasses.replace(subject, derived=graph, lookup=lookup)
