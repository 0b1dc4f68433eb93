"""The one form of a benchmark's result: a file, its tables in Markdown, and what it lost against an earlier one."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORM = "altprop benchmark 1"
_WORSE = 1.05  # a median this many times as large, with quartiles apart, is lost ground


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure.

    Attributes:
        value: the median of all rounds, or what was counted: whole where it is a count of things.
        low: first quartile of the rounds, None of what was counted once.
        high: third quartile.
        beside: further figures by name, such as the same by processor time.
        rounds: how often it was taken; None of what was counted, and of results that are older than this.
    """

    value: float
    low: float | None = None
    high: float | None = None
    beside: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rounds: int | None = None

    def __str__(self) -> str:
        digits = 1 if abs(self.value) >= 10 else 2
        text = str(self.value) if isinstance(self.value, int) else f"{self.value:.{digits}f}"
        if self.low is not None:
            text += f" ({self.low:.{digits}f} to {self.high:.{digits}f})"
        return text + "".join(f"; {name} {number:.2f}" for name, number in self.beside.items())


Rows = Mapping[str, Mapping[str, Cell]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells by row and column, and what they say.

    Attributes:
        title: what the figures are.
        rows: the cells.
        better: which figures are better, "less" or "more"; "" where they only stand beside others and none is better.
    """

    title: str
    rows: Rows
    better: str = "less"

    def counted(self, rounds: int) -> "Table":
        """The same, where each figure with quartiles says of how many rounds it is."""
        return dataclasses.replace(self, rows={name: _counted(row, rounds) for name, row in self.rows.items()})

    def markdown(self) -> str:
        """Returns the table."""
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        lines = [f"**{self.title}**", "", "| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for name, row in self.rows.items():
            cells = [str(row[column]) if column in row else "" for column in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Result:
    """What one benchmark found.

    Attributes:
        name: of the benchmark.
        machine: processor, versions. Tables say in their titles how many threads there were, if more than one.
        rounds: how often each figure was taken, at least; 0 where they were computed and nothing was measured.
        tables: the figures.
        remark: under what circumstances.
    """

    name: str
    machine: Mapping[str, str]
    rounds: int
    tables: tuple[Table, ...]
    remark: str = ""

    def cells(self) -> Iterator[tuple[str, Cell, str]]:
        """Yields all cells with the words that find them, and which figures are better."""
        for table in self.tables:
            for row, columns in table.rows.items():
                for column, cell in columns.items():
                    yield f"{table.title}: {row}, {column}", cell, table.better

    def markdown(self) -> str:
        """Returns all tables, and what they were measured on."""
        said = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        head = f"Measured on: {said}; {self._taken()}." if self.rounds else f"Computed for: {said}."
        lines = [f"{head} {self.remark}".rstrip(), ""]
        return "\n".join([*lines, "\n\n".join(table.markdown() for table in self.tables)])

    def _taken(self) -> str:
        """How often figures were taken, from the least to the most."""
        counts = [cell.rounds for _, cell, _ in self.cells() if cell.low is not None]
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts):
            return f"{self.rounds} rounds or more"
        return f"{min(known)} rounds" if min(known) == max(known) else f"{min(known)} to {max(known)} rounds"


def save(result: Result, folder: Path) -> Path:
    """Writes a result into a folder; returns the file."""
    path = folder / f"{result.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"form": FORM, **dataclasses.asdict(result)}, indent=1) + "\n")
    return path


def load(path: Path) -> Result | None:
    """Reads a result; None where there is none of this form."""
    return read(path.read_text()) if path.exists() else None


def read(text: str) -> Result | None:
    """Reads the text of a result; None where it is of another form."""
    found: dict[str, Any] = json.loads(text)
    if found.pop("form", None) != FORM:
        return None
    tables = tuple(
        Table(t["title"], {r: _row(row) for r, row in t["rows"].items()}, t.get("better", "less"))
        for t in found.pop("tables")
    )
    return Result(tables=tables, **found)


def _counted(row: Mapping[str, Cell], rounds: int) -> dict[str, Cell]:
    return {
        column: cell if cell.low is None else dataclasses.replace(cell, rounds=rounds) for column, cell in row.items()
    }


def differences(old: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Says what is otherwise in an earlier result's machine and versions than here; "" where nothing is."""
    keys = [key for key in dict.fromkeys([*old, *here]) if old.get(key) != here.get(key)]
    return ", ".join(f"{key} {old.get(key, 'not said')} there, {here.get(key, 'none')} here" for key in keys)


def _row(row: Mapping[str, Any]) -> dict[str, Cell]:
    return {column: Cell(**cell) for column, cell in row.items()}


def merge(old: Result | None, new: Result) -> Result:
    """Returns a result in which the rows that were measured anew stand in the place of the old ones.

    Args:
        old: an earlier result of the same benchmark; taken over only where it is of the same machine and versions. So
            a run that measures less has to be refused where it is not (`differences`), or it would delete the rest.
        new: the rows of this run.
    """
    if old is None or dict(old.machine) != dict(new.machine):
        return new
    tables = {table.title: table for table in old.tables}
    for table in new.tables:
        rows = _merged(tables[table.title].rows, table.rows) if table.title in tables else table.rows
        tables[table.title] = dataclasses.replace(table, rows=rows)
    stays = {where for where, _, _ in old.cells()} - {where for where, _, _ in new.cells()}
    remark = new.remark or (old.remark if stays else "")
    return dataclasses.replace(new, tables=tuple(tables.values()), rounds=min(old.rounds, new.rounds), remark=remark)


def _merged(old: Rows, new: Rows) -> Rows:
    """Rows with the cells that were measured anew in the place of the old ones."""
    return {row: {**old.get(row, {}), **new.get(row, {})} for row in dict.fromkeys([*old, *new])}


def lost_ground(old: Result | None, new: Result) -> list[str]:
    """Returns a sentence for each figure that is worse than an earlier one by more than its spread."""
    if old is None:
        return []
    if dict(old.machine) != dict(new.machine):
        return [f"{new.name}: the earlier result is of another machine or other versions, so nothing is compared."]
    before = {where: cell for where, cell, _ in old.cells()}
    found = [(where, before[where], cell, better) for where, cell, better in new.cells() if where in before]
    return [
        f"{new.name} lost ground: {where}: {cell.value:.2f}, it was {was.value:.2f}."
        for where, was, cell, better in found
        if set(cell.beside) == set(was.beside)  # else one may be by the clock, the other by the processor
        and ((better == "less" and _above(cell, was)) or (better == "more" and _above(was, cell)))
    ]


def _above(one: Cell, other: Cell) -> bool:
    """Whether a figure is larger than another by more than they spread."""
    apart = one.low is None or other.high is None or one.low > other.high
    return one.value > _WORSE * other.value and apart
