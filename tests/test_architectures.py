"""Models and rules: some cells of the grid every day, all of them under `make coverage`; see `grid`.

The everyday cells run every rule, each on a few models that together have every structure: convolutions and norms,
attention and embeddings, recurrence, long skips, products of two paths, several inputs.
"""

import warnings

import pytest
from grid import CASES, FAILS, RULES, SAVED, check_plain, missing, run_cell, save
from zoo_architectures import ARCHITECTURES

# The models of the everyday cells, and the rules that do not fit them.
FEW = {
    "unet": {"local_loss"},
    "nerf": {"dtp", "tp"},
    "gat": set(),
    "mixer": set(),
}
EVERYDAY = [(name, rule) for index, rule in enumerate(RULES) for name in (list(FEW)[index % len(FEW)],)]
EVERYDAY += [("translator", "bp"), ("densenet", "dfa"), ("mobilenet_v3", "reclra"), ("swin", "fa")]


@pytest.mark.skipif(bool(SAVED), reason="all cells are run")
@pytest.mark.parametrize(("name", "rule"), EVERYDAY)
def test_some_cells(name: str, rule: str) -> None:
    assert run_cell(name, rule).partition(":")[0] in ("yes", "frozen in part", "to 1e-07")


@pytest.mark.skipif(bool(SAVED), reason="is part of the cells of bp")
@pytest.mark.parametrize("name", ["swin", "llama", "wav2vec2"])
def test_a_plain_checkpoint_loads(name: str) -> None:
    assert name in ARCHITECTURES
    check_plain(CASES[name])


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
