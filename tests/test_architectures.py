"""Models and rules: some cells of the grid every day, all of them under `make coverage`; see `grid`."""

import warnings

import pytest
from grid import CASES, FAILS, RULES, SAVED, check_plain, missing, run_cell, save

# Together: convolutions and long skips, products of two paths, attention by edges, norms and mixing of positions.
FEW = ("unet", "nerf", "gat", "mixer")
ELSEWHERE = {"local_loss": "mixer"}  # it needs one target a sample, or one at every position
EVERYDAY = [(ELSEWHERE.get(rule, FEW[index % len(FEW)]), rule) for index, rule in enumerate(RULES)]
EVERYDAY += [("densenet", "dfa"), ("mobilenet_v3", "reclra")]


@pytest.mark.skipif(bool(SAVED), reason="all cells are run")
@pytest.mark.parametrize(("name", "rule"), EVERYDAY)
def test_some_cells(name: str, rule: str) -> None:
    assert run_cell(name, rule) in ("yes", "frozen in part")


@pytest.mark.skipif(bool(SAVED), reason="is part of the cells of bp")
def test_a_plain_checkpoint_loads() -> None:
    check_plain(CASES["llama"])


@pytest.mark.skipif(not SAVED, reason="ALTPROP_COVERAGE names no file for the outcomes")
@pytest.mark.parametrize(("name", "rule"), list(missing()) if SAVED else [])
def test_every_cell(name: str, rule: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = run_cell(name, rule)
    except Exception as error:
        save(name, rule, f"{FAILS}: {type(error).__name__}")
        raise
    save(name, rule, outcome)
