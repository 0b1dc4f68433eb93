"""Programs as their own text gives them: what tests of every model ask of the text."""

from collections.abc import Iterator

import pytest
import torch

import altprop
from altprop.ir.errors import ProgramError
from altprop.ir.program import Program
from altprop.ir.program_laws import verify_program
from altprop.ir.program_text import format_program, parse_program


def held(program: Program) -> dict[str, torch.Tensor]:
    """The tensors that a program holds."""
    names = {str(node.target) for node in program.graph.graph.nodes if node.op == "get_attr"}
    return {name: getattr(program.graph, name) for name in names}


def again(program: Program) -> Program:
    """The program as its text gives it."""
    return parse_program(format_program(program), held(program))


def symbols(program: Program) -> Iterator[str]:
    """The names of the symbols in a program's sizes; those of sizes that depend on numbers in a tensor begin with u."""
    for node in program.graph.graph.nodes:
        for value in torch.utils._pytree.tree_leaves(node.meta.get("val")):
            for size in value.shape if isinstance(value, torch.Tensor) else (value,):
                if isinstance(size, torch.SymInt):
                    yield from (symbol.name for symbol in size.node.expr.free_symbols)


def assert_programs_parse_back(net: altprop.LocalNet) -> None:
    """Every program of a net obeys the laws and prints, and its text gives a program that prints so.

    A program whose sizes depend on the numbers in a tensor, as where edges of a graph are left out, has no text.
    """
    assert net.graph.programs
    for program in net.graph.programs.values():
        verify_program(program, "tuned", "all passes")
        if any(name.startswith("u") for name in symbols(program)):
            with pytest.raises(ProgramError, match="depends on the numbers in a tensor, not on the batch"):
                again(program)
            continue
        found = again(program)
        assert (found.name, found.inputs, found.outputs) == (program.name, program.inputs, program.outputs)
        assert str(found) == str(program)
