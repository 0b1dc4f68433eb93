"""Steps that tune a program, on some lines of its text: laws and numbers hold, before as behind."""

from collections.abc import Callable
from textwrap import dedent
from typing import Any

import torch
from torch import fx

from altprop.ir.program import Program
from altprop.ir.program_laws import verify_program
from altprop.ir.program_text import parse_program

Step = Callable[[fx.Graph], int]

BATCH = 6


def program_of(lines: str) -> Program:
    """The program of some lines, behind the three first ones, which are always the same."""
    return parse_program(f"altprop program 1\nprogram example\nbatch 4\n{dedent(lines).strip()}")


def tuned(lines: str, step: Step, within: float | None = None) -> tuple[int, str]:
    """Runs a step. Returns its count, and the lines that differ from inputs.

    The laws hold before and behind, the forms of the values are those of a run, and the program gives and writes the
    same bits, or the same numbers within a bound.
    """
    program = program_of(lines)
    verify_program(program, "optimized", by_run=True)
    expected = numbers(program)
    count = step(program.graph.graph)
    program.graph.recompile()
    verify_program(program, "optimized", by_run=True)
    for before, after in zip(expected, numbers(program), strict=True):
        if within is None:
            assert torch.equal(before, after)
        else:
            assert torch.allclose(before, after, rtol=0, atol=within)
    text = str(program).split("\n")[3:]
    return count, "\n".join(line for line in text if not line.startswith("take "))


def block(lines: str) -> str:
    """Lines of a text, without what stands before them."""
    return dedent(lines).strip()


def numbers(program: Program) -> list[torch.Tensor]:
    """All that a program gives and all that it may write, for inputs that depend on their place and form alone."""
    given: list[Any] = [0.25 if node.meta.get("val") is None else drawn(node) for node in program.placeholders.values()]
    torch.manual_seed(0)
    with torch.no_grad():
        made = program.graph(*given)
    return [*made, *(value for value in given if isinstance(value, torch.Tensor))]


def drawn(node: fx.Node) -> torch.Tensor:
    value = node.meta["val"]
    sizes, strides = ([at(size) for size in form] for form in (value.shape, value.stride()))
    generator = torch.Generator().manual_seed(sum(map(ord, node.name)))
    empty = torch.empty_strided(sizes, strides, dtype=value.dtype)
    return empty.copy_(torch.randn(sizes, generator=generator) * 2)


def at(size: Any) -> int:
    return (
        size if isinstance(size, int) else int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, BATCH)))
    )
