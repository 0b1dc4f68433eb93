"""torch's databases of operators and modules: one sample of each equals autograd by `bp`, or is refused in a sentence.

`tests/run_suites.py` runs more samples, and writes what came of them.
"""

import pytest

pytest.importorskip("expecttest", reason="torch's databases need expecttest: pip install expecttest")

import suite_cases  # behind the import that it needs
from suite_cases import EQUAL, NOTHING, REFUSED, SUITES

ENTRIES = [(suite, name) for suite, (entries, _) in SUITES.items() for name in entries()]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("suite", "name"), ENTRIES, ids=[f"{suite} {name}" for suite, name in ENTRIES])
def test_an_entry_equals_autograd_or_is_refused(suite: str, name: str) -> None:
    for case in SUITES[suite][1](name, 1):
        outcome = suite_cases.outcome(case)
        fine = outcome == EQUAL or outcome.startswith((REFUSED, *NOTHING))
        assert fine or suite_cases.listed(case.name), outcome
