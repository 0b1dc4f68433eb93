"""The suites that others wrote, by name: torch's operators and modules, and random models of NNSmith."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import suite_cases
import suite_models
from suite_cases import Case


@dataclasses.dataclass(frozen=True)
class Suite:
    """Entries, their cases, and how cases are judged.

    Attributes:
        entries: by name.
        cases: the samples of an entry.
        outcomes: of cases with one size of the batch.
    """

    entries: Callable[[], dict[str, Any]]
    cases: Callable[[str], Iterator[Case]]
    outcomes: Callable[[Sequence[Case]], list[str]]


SUITES = {
    "operators": Suite(suite_cases.operators, suite_cases.samples, suite_cases.outcomes),
    "modules": Suite(suite_cases.modules, suite_cases.module_samples, suite_cases.outcomes),
    "models": Suite(suite_models.entries, suite_models.models, suite_models.each_by_bp),
    "models, silent": Suite(suite_models.entries, suite_models.models, suite_models.each_silent),
}
