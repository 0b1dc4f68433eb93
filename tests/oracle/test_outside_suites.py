"""Suites that others wrote: torch's operators and modules, and random models of NNSmith.

Here runs one sample of each entry; `tests/run_suites.py` runs all of them, and writes what came of them.
"""

import pytest

pytest.importorskip("expecttest", reason="torch's databases need expecttest: pip install expecttest")

import suite_cases  # behind the import that it needs
import suite_models
from suite_cases import EQUAL, NO_BATCH, NOTHING, REFUSED
from suites import SUITES

ENTRIES = [(suite, name) for suite in ("operators", "modules") for name in SUITES[suite].entries()]
MODELS = range(0, suite_models.COUNT, 10)


def fine(outcome: str) -> bool:
    """Whether an outcome is one that may stand."""
    return outcome == EQUAL or outcome.startswith((REFUSED, *NOTHING))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("suite", "name"), ENTRIES, ids=[f"{suite} {name}" for suite, name in ENTRIES])
def test_an_entry_equals_autograd_or_is_refused(suite: str, name: str) -> None:
    case = next((case for case in SUITES[suite].cases(name) if case.model is not None), None)
    outcome = NO_BATCH if case is None else suite_cases.outcome(case)
    assert fine(outcome) or suite_cases.listed(name), outcome


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", MODELS)
def test_a_random_model_equals_autograd_and_hears_nothing_over_zeros(number: int) -> None:
    """By `bp`; and by `dfa` with all feedback zero, nothing moves that `explain` gives to dfa."""
    pytest.importorskip("nnsmith", reason="random models need NNSmith: pip install nnsmith")
    case = suite_models.model("model", number)
    found = [*suite_models.each_by_bp([case]), *suite_models.each_silent([case])]
    assert all(map(fine, found)), found
