"""Runs that are disturbed at moments drawn by chance end as others do; `tests/run_kills.py` does it longer."""

from pathlib import Path

import pytest
import run_kills
import torch


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in run_kills.KINDS if kind != "threads"])
def test_runs_end_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    outcomes = [row["outcome"] for row in run_kills.run(kind, 2, tmp_path / "kills.jsonl")]
    assert set(outcomes) <= {*run_kills.STOPPED, run_kills.SAME}
    assert outcomes[-1] == run_kills.SAME


@pytest.mark.parametrize("change", [lambda state: state | {"b": torch.ones(2)}, lambda state: {"a": state["a"] + 1e-7}])
def test_other_weights_are_told(change: object) -> None:
    state = {"a": torch.zeros(3)}
    assert run_kills.compare(state, dict(state)) == run_kills.SAME
    assert run_kills.compare(state, change(state)) != run_kills.SAME  # type: ignore[operator]
