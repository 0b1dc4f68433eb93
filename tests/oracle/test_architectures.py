"""Models and rules: some cells of the grid every day, all of them under `make coverage`; see `grid`."""

import json
import signal
from pathlib import Path

import pytest
import run_grid
from against_autograd import check_against_autograd
from choose import part
from grid import CASES, FAILS, RULES, check_plain, load, run_cell, save, tidy, wanting

# Together: convolutions and long skips, products of two paths, attention by edges, norms and mixing of positions.
LARGE = ("scan", "mobilenet_v3", "densenet")  # they take seconds
FEW = ("unet", "nerf", "gat", "mixer")
ELSEWHERE = {
    "local_loss": "mixer",  # it needs one target a sample, or one at every position
    **dict.fromkeys(("ls", "mac"), "mlp_tanh"),  # regions of one layer
    **dict.fromkeys(("es", "snes", "cem", "pso", "ga"), "mlp_tanh"),  # elsewhere they run a region once a member
}
SOME = [(ELSEWHERE.get(rule, FEW[index % len(FEW)]), rule) for index, rule in enumerate(RULES)]
SOME += [("densenet", "dfa"), ("mobilenet_v3", "reclra"), ("scan", "dfa"), ("variational", "fa")]
CHOSEN = [
    pytest.param(*cell, marks=() if not part("".join(cell), 3) and cell[0] not in LARGE else pytest.mark.full)
    for cell in SOME
]


@pytest.mark.parametrize(("name", "rule"), CHOSEN)
def test_some_cells(name: str, rule: str) -> None:
    assert run_cell(name, rule) in ("yes", "frozen in part")


@pytest.mark.full
def test_a_plain_checkpoint_loads() -> None:
    check_plain(CASES["llama"])


def test_outputs_of_several_sizes_have_one_mean() -> None:
    check_against_autograd(CASES["variational"])


def test_outcomes_are_kept_line_by_line(tmp_path: Path) -> None:
    out = tmp_path / "coverage.jsonl"
    save(out, "vgg", "fa", f"{FAILS}: AssertionError", 1.0)
    save(out, "vgg", "bp", "yes", 2.04)
    assert ("vgg", "fa") in wanting(out)
    assert ("vgg", "fa") not in wanting(out, failed=False)
    save(out, "vgg", "fa", "yes", 1.0)
    out.write_text(out.read_text("utf-8") + '{"cell": "vgg df', "utf-8")
    tidy(out)
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [(line["cell"], line["seconds"]) for line in lines] == [("vgg bp", 2.0), ("vgg fa", 1.0)]
    assert len(wanting(out)) == len(CASES) * len(RULES) - 2
    tidy(out, drop=[("vgg", "bp")])
    assert load(out) == {"vgg fa": "yes"}


def test_every_model_gets_the_first_rules_first() -> None:
    shares = run_grid.shares(wanting(Path("none")), size=7)
    assert [share.rules for share in shares[: len(CASES)]] == [run_grid.FIRST] * len(CASES)
    assert {(share.name, rule) for share in shares for rule in share.rules} == {(n, r) for n in CASES for r in RULES}


def test_a_share_goes_on_behind_a_cell_that_killed_its_process(tmp_path: Path) -> None:
    out = tmp_path / "coverage.jsonl"
    share = run_grid.Share("vgg", ("bp", "fa", "dfa"))
    pool = run_grid.Pool([], out, limit=5)
    save(out, "vgg", "bp", "yes", 1.0)
    pool.ended(share, -signal.SIGALRM)
    assert load(out)["vgg fa"] == f"{FAILS}: takes more than 5 s"
    assert list(pool.waiting) == [run_grid.Share("vgg", ("dfa",))]
    pool.ended(run_grid.Share("vgg", ("dfa",)), -signal.SIGSEGV)
    assert load(out)["vgg dfa"] == f"{FAILS}: its process ended with -11"
