"""Some cells of the grid of rules and models in onnxruntime; `docs/write_sessions.py` runs all."""

from pathlib import Path

import pytest
import session_grid
import torch
from session_grid import BAD, RULES, fill, load, processors, ran, run_cell, table
from zoo import ZOO

from altprop.runtime.backends.onnxruntime import SessionStep

pytestmark = pytest.mark.third

# A rule each, on models that compile in seconds: products, convolutions, norms, several outputs, draws.
FEW = ("mlp_silu", "conv_bn_dropout", "residual", "conv1d", "tuple_output")
TAKES_TURNS = {"hdfa"}
ELSEWHERE = {"bp", "dfa", "fa", "reclra"}  # test_session.py
NEEDS = {
    "local_loss": "mlp_tanh",  # classes
    "inner": "mlp_silu",  # no dropout within a region
    "tp": "mlp_silu",  # behind a batch norm its rounding grows
    **dict.fromkeys(("es", "snes", "cem", "pso", "ga"), "mlp_silu"),  # elsewhere they run a region once a member
    **dict.fromkeys(("pc", "epc", "ep", "dualprop", "mac", "pepita"), "mlp_silu"),  # one prediction, and nothing random
}
# Members that lie close together change places by rounding, and after them all that follows.
WIDE = {"es": "es(sigma=0.1)"}
REFUSED = dict.fromkeys(("ls", "mac", "ga"), "refused: ")  # ONNX solves no linear systems, and has no stable sort
EVERYDAY = [
    (NEEDS.get(rule, FEW[i % len(FEW)]), rule) for i, rule in enumerate(RULES) if rule not in TAKES_TURNS | ELSEWHERE
]


@pytest.mark.parametrize(("name", "rule"), EVERYDAY)
def test_some_cells(name: str, rule: str) -> None:
    outcome = run_cell(name, WIDE.get(rule, rule))
    assert outcome == "equal" or REFUSED.get(rule, BAD) in outcome


@pytest.mark.parametrize("name", ["mlp_tanh", "conv_bn_dropout"])
def test_a_wrong_session_differs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SessionStep.run
    monkeypatch.setattr(SessionStep, "run", lambda *args: [run(*args)[0] + 1e-3])
    assert run_cell(name, "dfa").startswith(f"{BAD} by ")


def test_rounding_that_grows_is_told_from_wrong_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    compare = session_grid.distance
    far = iter([0.5])
    monkeypatch.setattr(session_grid, "distance", lambda one, other: next(far, None) or compare(one, other))
    assert run_cell("mlp_tanh", "dfa") == "rounding grows to 5e-01"


def test_the_grid_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"mlp_tanh dfa": "equal", "mlp_tanh fa": f"{BAD} by 1e-02"}
    monkeypatch.setattr(session_grid, "run_cell", lambda name, rule: outcomes[f"{name} {rule}"])
    path = tmp_path / "kept" / "sessions.json"
    assert list(fill(path, ["mlp_tanh"], ["dfa"], 0.0)) == []
    assert len(list(fill(path, ["mlp_tanh"], ["dfa", "fa"], 60.0))) == 2
    outcomes["mlp_tanh fa"] = "rounding grows to 2e-05"
    assert list(fill(path, ["mlp_tanh"], ["dfa", "fa"], 60.0)) == ["mlp_tanh fa: rounding grows to 2e-05"]
    assert load(path) == outcomes
    outcomes["mlp_tanh fa"] = "refused: No."
    assert list(fill(path, ["mlp_tanh"], ["dfa", "fa"], 60.0, processor="one", again="rounding")) == [
        "mlp_tanh fa: refused: No."
    ]
    assert processors(path) == ["one"]


def test_table() -> None:
    outcomes = {"mlp_tanh dfa": "equal", "mlp_tanh fa": "rounding grows to 2e-05", "mlp_tanh hdfa": "refused: No."}
    lines = table(outcomes).splitlines()
    row = next(line for line in lines if line.startswith("| mlp_tanh |"))
    assert row.startswith("| mlp_tanh | 1 of 3 | fa: rounding grows to 2e-05; hdfa: refused (1) |")
    assert lines[-1] == "1. No."
    assert len(lines) == 2 + len(ZOO) + 2


def test_how_much_of_the_grid_has_run() -> None:
    outcomes = {f"{name} {rule}": "equal" for name in ZOO for rule in RULES[2:]} | {"mlp_tanh " + RULES[1]: "equal"}
    assert ran(outcomes) == (
        f"{len(RULES) - 2} of {len(RULES)} rules have run on all {len(ZOO)} models; on some of them {RULES[1]}; "
        f"on none {RULES[0]}."
    )


def test_numbers_above_one_are_measured_by_the_largest() -> None:
    one = {"a": torch.tensor([1.0, 200.0]), "b": torch.zeros(3), "c": torch.zeros(0)}
    other = {"a": torch.tensor([2.0, 200.0]), "b": torch.full((3,), 1e-4), "c": torch.zeros(0)}
    assert session_grid.distance(one, other) == pytest.approx(0.005)
    assert session_grid.distance(one, {**other, "a": torch.tensor([float("nan"), 1.0])}) == float("inf")
