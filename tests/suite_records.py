"""What is kept of an entry of a suite: its outcomes, and the numbers of the samples that had them.

{"suite": "operators", "entry": "add", "outcomes": {"equal": "1-4", "no batch": "0,5"}}
"""

import dataclasses
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The outcomes of one entry.

    Attributes:
        suite: "operators".
        name: "add".
        outcomes: numbers of samples by outcome, as text: "0-3,7".
    """

    suite: str
    name: str
    outcomes: dict[str, str]

    @staticmethod
    def of(suite: str, name: str, found: dict[int, str]) -> "Entry":
        """An entry from the outcome of each sample."""
        numbers = defaultdict(list)
        for number, outcome in sorted(found.items()):
            numbers[outcome].append(number)
        return Entry(suite, name, {outcome: as_text(some) for outcome, some in numbers.items()})

    def samples(self) -> Iterator[tuple[int, str]]:
        """Each sample's number and outcome."""
        for outcome, text in self.outcomes.items():
            yield from ((number, outcome) for number in as_numbers(text))


def as_text(numbers: Iterable[int]) -> str:
    """Numbers in order as text: "0-3,7".

    >>> as_text([0, 1, 2, 3, 7])
    '0-3,7'
    """
    runs = [list(run) for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


def as_numbers(text: str) -> Iterator[int]:
    """The numbers of such a text.

    >>> list(as_numbers("0-3,7"))
    [0, 1, 2, 3, 7]
    """
    for run in text.split(","):
        first, last = re.fullmatch(r"(-?\d+)(?:-(\d+))?", run).groups()  # type: ignore[union-attr]
        yield from range(int(first), int(last or first) + 1)


def records(path: Path) -> dict[tuple[str, str], Entry]:
    """What was kept of each entry last, by suite and name."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {
        (one["suite"], one["entry"]): Entry(one["suite"], one["entry"], one["outcomes"])
        for one in map(json.loads, lines)
    }


def keep(path: Path, entry: Entry) -> None:
    """Adds an entry, in the place of what was kept of it before."""
    found = records(path)
    line = {"suite": entry.suite, "entry": entry.name, "outcomes": entry.outcomes}
    if (entry.suite, entry.name) not in found:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return
    found[entry.suite, entry.name] = entry
    lines = [{"suite": one.suite, "entry": one.name, "outcomes": one.outcomes} for one in found.values()]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
