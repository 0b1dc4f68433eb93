"""Programs as their own text gives them: what tests of every model ask of the text."""

import torch

import altprop
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


def assert_programs_parse_back(net: altprop.LocalNet) -> None:
    """Every program of a net obeys the laws and prints, and its text gives a program that prints so."""
    assert net.graph.programs
    for program in net.graph.programs.values():
        verify_program(program, "tuned", "all passes")
        found = again(program)
        assert (found.name, found.inputs, found.outputs) == (program.name, program.inputs, program.outputs)
        assert str(found) == str(program)
