"""Writes a program for `torch.export.load`: names in, names out, as in the ONNX file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altprop.compiler.capture.quiet import quiet
from altprop.compiler.export.contract import describe, initial_state, input_names, output_names
from altprop.compiler.export.drawn import random_inputs
from altprop.compiler.export.reference import TOLERANCE, difference, reference
from altprop.compiler.export.retrace import purify
from altprop.compiler.export.state_file import save_state
from altprop.compiler.export.subject import Subject, cleaned, constants_of, flat_program
from altprop.ir.errors import ExportError
from altprop.ir.program import Program, Slot


class NamedProgram(nn.Module):
    """A pure program from a dict of tensors to a dict of tensors."""

    def __init__(self, program: Program, constants: dict[Slot, torch.Tensor]) -> None:
        super().__init__()
        self.program = program.graph
        self.order = [(slot, name) for slot, name in input_names(program).items()]
        self.results = list(output_names(program).values())
        self.places = {slot: f"constant_{index}" for index, slot in enumerate(constants)}
        for slot, place in self.places.items():
            self.register_buffer(place, constants[slot])

    def forward(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Runs the program."""
        args = [getattr(self, self.places[s]) if s in self.places else values[name] for s, name in self.order]
        return dict(zip(self.results, self.program(*args), strict=True))


def write_pt2(subject: Subject, path: Path, what: str, initial: str = ".npz", errors: bool = False) -> Path:
    """Writes "step" or "backward".

    Raises:
        ExportError: another program was asked for, or what was written differs from torch.
    """
    if what not in ("step", "backward"):
        raise ExportError(f'".pt2" holds "step" or "backward"; for what="{what}" export ".onnx".')
    original = flat_program(subject, what, errors)
    pure = purify(cleaned(subject, original), subject.fake_mode, subject.optimizer if what == "step" else None)
    module = NamedProgram(pure, constants_of(subject, pure, None))
    exported = _export(subject, module, pure)
    _check(subject, original, pure, exported)
    contract = describe(subject, pure, what, {})
    if initial:
        contract["initial"] = path.with_suffix(initial).name
        save_state(initial_state(subject, pure), path.with_suffix(initial))
    torch.export.save(exported, path)
    path.with_suffix(".json").write_text(json.dumps(contract, indent=1) + "\n", "utf-8")
    return path


def _feeds(subject: Subject, pure: Program, batch: int) -> dict[Slot, torch.Tensor]:
    given = random_inputs(subject, (pure,), batch)
    return {slot: value for slot, value in given.items() if slot.kind != "constant"}


def _export(subject: Subject, module: NamedProgram, pure: Program) -> torch.export.ExportedProgram:
    batch = subject.derived.captured.batch
    given = _feeds(subject, pure, 3 if isinstance(batch, torch.SymInt) else int(batch))
    names = input_names(pure)
    nodes = pure.placeholders
    shapes = {name: _dynamic(nodes[slot].meta["val"]) for slot, name in _by_name(names) if slot in given}
    with quiet(), torch.no_grad():
        made: Any = torch.export.export(module, (_in_order(names, given),), dynamic_shapes=(shapes,), strict=False)
    return made


def _in_order(names: Mapping[Slot, str], given: Mapping[Slot, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: given[slot] for slot, name in _by_name(names) if slot in given and slot.kind != "constant"}


def _by_name(names: Mapping[Slot, str]) -> list[tuple[Slot, str]]:
    """Inputs by the alphabet: torch 2.9 takes them in no other order than that of the export."""
    return sorted(names.items(), key=lambda one: one[1])


def _dynamic(value: torch.Tensor) -> dict[int, Any]:
    return {d: torch.export.Dim.AUTO for d, size in enumerate(value.shape) if isinstance(size, torch.SymInt)}


def _check(subject: Subject, original: Program, pure: Program, exported: torch.export.ExportedProgram) -> None:
    batch = subject.derived.captured.batch
    given = random_inputs(subject, (original, pure), 5 if isinstance(batch, torch.SymInt) else int(batch))
    expected = reference(subject, original, given)
    names, results = input_names(pure), output_names(pure)
    with torch.no_grad():
        actual = exported.module()(_in_order(names, given))
    for slot, name in results.items():
        found = difference(expected[slot], actual[name].numpy())
        if not found <= TOLERANCE:
            raise ExportError(
                f'the exported program gives another "{name}" than torch, by {found:.1e}. Nothing was '
                'written: export ".onnx", or report it.'
            )
