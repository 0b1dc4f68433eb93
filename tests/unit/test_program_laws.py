"""The laws of programs: each is broken by a line of text, and named."""

import pytest
import torch
from torch import fx
from tuning import program_of

from altprop import VerifyError
from altprop.ir.program import Program, Slot
from altprop.ir.program_laws import LAWS, LEVELS, MOVED, verify_program
from altprop.ir.program_text import parse_program

STEP = """
take w = parameter fc.weight: float32 (3, 7)
take m = state momentum:fc.weight: float32 (3, 7)
take mean = buffer norm.mean: float32 (7)
take x = input x: float32 (N, 7)
take y = target 0: float32 (N, 3)
take rate = scalar minus_lr
t = aten.t(w): float32 (7, 3) strides (1, 7)
h = aten.mm(x, t): float32 (N, 3)
d = aten.sub.Tensor(h, y): float32 (N, 3)
loss = aten.sum(d): float32 ()
turned = aten.t(d): float32 (3, N) strides (1, 3)
g = aten.mm(turned, x): float32 (3, 7)
kept = aten.mul_.Tensor(m, 0.9): float32 (3, 7)
moved = aten.add_.Tensor(kept, g): float32 (3, 7)
new = aten.add_.Tensor(w, moved, alpha=rate): float32 (3, 7)
average = aten.mean.dim(x, [0]): float32 (7)
noted = aten.copy_(mean, average): float32 (7)
give loss loss = loss
"""


def step(lines: str = STEP) -> Program:
    return parse_program(f"altprop program 1\nprogram step\nbatch 4\n{lines.strip()}")


def test_a_lawful_program_passes() -> None:
    verify_program(step(), "tuned", by_run=True)


def test_levels_agree() -> None:
    assert tuple(LAWS) == tuple(MOVED) == LEVELS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("take y = target", "take y = residual", "it takes residual 0, and a program step takes no residual"),
        ("give loss loss", "give residual loss", "it gives residual loss, and a program step gives no residual"),
        ("average = ", "late = aten.t(w): float32 (7, 3) strides (1, 7)\naverage = ", "late: reads w, which new has"),
        ("give loss", "give error w = t\ngive loss", "output: reads t, which new has written before"),
        ("average = ", "late = aten.add_.Tensor(h, d): float32 (N, 3)\naverage = ", "law"),
        ("turned = ", "late = aten.neg_(h): float32 (N, 3)\nturned = ", "law"),
        ("g = aten", "late = aten.neg_(d): float32 (N, 3)\ng = aten", "g: reads turned, which late has written before"),
        ("average = ", "late = aten.neg_(x): float32 (N, 7)\naverage = ", "late: writes input x, which a program that"),
        (
            "average = ",
            "late = aten.exp(g): float32 (3, 7)\naverage = ",
            "late: nothing reads it, and it writes nothing",
        ),
        (
            "float32 (N, 3)\nloss",
            "float32 (N, 3) strides (1, 4)\nloss",
            r"d: is .*, and is taken for .*strides \(1, 4\)",
        ),
        ("aten.mm(turned, x)", "aten.mm(x, turned)", "g: cannot run: "),
        ("(N, 3)\nd = ", "(N, 7)\nd = ", r"h: is float32 \(N, 3\) in a run, and is taken for float32 \(N, 7\)"),
    ],
)
def test_a_broken_law_is_named(old: str, new: str, message: str) -> None:
    assert STEP.count(old) == 1
    program = step(STEP.replace(old, new))
    if message == "law":  # what nothing reads later may be written
        verify_program(program, "tuned", by_run=True)
        return
    with pytest.raises(VerifyError, match=message) as raised:
        verify_program(program, "tuned", "my step", by_run=True)
    assert str(raised.value).startswith("after my step, the program step breaks ")


def test_before_the_optimizer_a_program_writes_buffers_alone() -> None:
    with pytest.raises(VerifyError, match=r"kept: writes state momentum:fc\.weight, which a .* is flat"):
        verify_program(step(), "flat")


def test_adamw_may_write_a_parameter_twice() -> None:
    shrunk = "shrunk = aten.mul_.Tensor(w, 0.99): float32 (3, 7)\nnew = "
    verify_program(step(STEP.replace("new = ", shrunk)), "tuned")
    early = "shrunk = aten.mul_.Tensor(w, 0.99): float32 (3, 7)\ng = aten.neg(w)"
    program = step(STEP.replace("g = aten.mm(turned, x)", early))
    with pytest.raises(VerifyError, match="g: reads w, which shrunk has written before"):
        verify_program(program, "tuned")


def test_slots_and_placeholders_agree() -> None:
    program = step()
    fewer = program.replace(inputs=program.inputs[:-1])
    with pytest.raises(VerifyError, match="there are 5 input slots for 6 inputs"):
        verify_program(fewer, "flat")
    twice = program.replace(inputs=(program.inputs[0], *program.inputs[:-1]))
    with pytest.raises(VerifyError, match=r"the input slot parameter fc\.weight stands twice"):
        verify_program(twice, "flat")
    more = program.replace(outputs=(*program.outputs, Slot("error", "fc")))
    with pytest.raises(VerifyError, match="there are 2 output slots for 1 outputs"):
        verify_program(more, "flat")


def test_unknown_operators_and_disorder_are_named() -> None:
    program = program_of("take x = input x: float32 (N, 7)\na = aten.exp(x): float32 (N, 7)\ngive output a = a")
    graph = program.graph.graph
    node = next(node for node in graph.nodes if node.name == "a")
    node.target = len
    with pytest.raises(VerifyError, match="a: <built-in function len> is no operator"):
        verify_program(program, "flat")
    node.target = fx.wrap
    node.op = "call_method"
    with pytest.raises(VerifyError, match="a: a program has no call_method"):
        verify_program(program, "flat")


def test_a_constant_is_not_written() -> None:
    program = step()
    graph = program.graph.graph
    program.graph.register_buffer("held", torch.ones(()))
    with graph.inserting_before(graph.find_nodes(op="output")[0]):
        held = graph.get_attr("held")
        held.meta["val"] = torch.ones(())
        written = graph.call_function(torch.ops.aten.mul_.Tensor, (held, 2.0))
        written.meta["val"] = held.meta["val"]
    with pytest.raises(VerifyError, match="writes held, a constant"):
        verify_program(program, "tuned")
