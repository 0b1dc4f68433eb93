"""The loop as one operator: what it computes, and its laws."""

import pytest
import torch

from altprop.ir.errors import VerifyError
from altprop.ir.program_laws import verify_program
from altprop.ir.program_text import parse_program
from altprop.ir.repeat_operator import repeat

BODY = """altprop program 1
program body
batch 4
take x = value 0: float32 (N, 3)
take w = value 1: float32 (3, 3)
mm = aten.mm(x, w): float32 (N, 3)
tanh = aten.tanh(mm): float32 (N, 3)
give value 0 = tanh"""
LOOP = """altprop program 1
program step
batch 4
take x = input x: float32 (N, 3)
take w = parameter w: float32 (3, 3)
repeat = altprop.repeat([x], [w], TIMES, BODY): list[float32 (N, 3)]
getitem = operator.getitem(repeat, 0): float32 (N, 3)
give loss loss = getitem"""


def loop(times: int = 3, body: str = BODY) -> str:
    escaped = body.replace("\n", "\\n")
    return LOOP.replace("TIMES", str(times)).replace("BODY", f'"{escaped}"')


X, W = torch.randn(5, 3), torch.randn(3, 3)


@pytest.mark.parametrize("times", [0, 1, 8])
def test_it_runs_its_body_so_many_times(times: int) -> None:
    wanted = X
    for _ in range(times):
        wanted = torch.tanh(wanted @ W)
    (found,) = repeat([X], [W], times, BODY)
    assert torch.equal(found, wanted)
    found.zero_()  # it is nobody else's
    assert X.abs().min() > 0


def test_a_program_with_a_loop_keeps_the_laws() -> None:
    verify_program(parse_program(loop()), "tuned", by_run=True)


BROKEN = {
    "-1 rounds of 1 and 1 values do not fit": loop(-1),
    "rounds of 1 and 1 values do not fit": loop(
        body=BODY.replace("give value 0 = tanh", "give value 0 = tanh\ngive value 1 = mm")
    ),
    r"value 2 of its body is float32 \(3\), not float32 \(N, 3\)": loop(
        body=BODY.replace(
            "tanh = aten.tanh(mm): float32 (N, 3)", "sum_1 = aten.sum.dim_IntList(mm, [0]): float32 (3)"
        ).replace("= tanh", "= sum_1")
    ),
    "tanh writes what its body was given": loop(body=BODY.replace("tanh = aten.tanh(mm)", "tanh = aten.tanh_(x)")),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_body_that_does_not_fit_is_found(problem: str) -> None:
    with pytest.raises(VerifyError, match=problem):
        verify_program(parse_program(BROKEN[problem]), "flat")
