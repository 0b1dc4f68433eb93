"""The graphs that a compilation went through, by the pass that made them; prints as a table.

Behind the passes stand the programs that were made, each with the tuning passes that changed it.
"""

from collections.abc import Iterator, Mapping

from altprop.ir.graph import ErrorGraph
from altprop.ir.timings import Timings


class History(Mapping[str, ErrorGraph]):
    """The graph after each pass, by the pass's name. To read one, print it: `print(net.history["cut_regions"])`."""

    def __init__(self, graphs: Mapping[str, ErrorGraph], timings: Timings) -> None:
        self._graphs, self._timings = graphs, timings

    def __getitem__(self, name: str) -> ErrorGraph:
        return self._graphs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._graphs)

    def __len__(self) -> int:
        return len(self._graphs)

    def did(self, name: str) -> str:
        """What a pass did, in words; empty for what says nothing."""
        return self._timings.did.get(name, "")

    def __str__(self) -> str:
        did, seconds = self._timings.did, self._timings.stages
        rows = [("pass", "what it did", "seconds")]
        rows += [(name, did.get(name, ""), f"{seconds.get(name, 0.0):7.3f}") for name in self._graphs]
        rows += [row for stage, changes in self._timings.changes.items() for row in self._tuning(stage, changes)]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(f"{one.ljust(widths[0])}  {two.ljust(widths[1])}  {three}" for one, two, three in rows)

    def _tuning(self, stage: str, changes: Mapping[str, int]) -> list[tuple[str, str, str]]:
        """The lines of a program that was made: all of it, and each tuning pass that changed something."""
        whole, parts = self._timings.stages.get(stage, 0.0), self._timings.parts.get(stage, {})
        found = [(stage, f"{sum(changes.values())} changes to tune it", f"{whole:7.3f}")]
        lines = ((part, count, parts.get(part, 0.0)) for part, count in changes.items() if count)
        return found + [(f"  {part}", f"{count} changes", f"{took:7.3f}") for part, count, took in lines]

    __repr__ = __str__
