"""The table of `altprop examine --timings`."""

from rich import box
from rich.console import Group
from rich.table import Table

from altprop.ir.timings import Timings

_SLOWEST = 8


def show(timings: Timings) -> Group:
    """Returns two tables: one row a stage of the compilation, and the regions that took longest."""
    return Group(_stages(timings), "", _regions(timings))


def _stages(timings: Timings) -> Table:
    table = _table("stage", "ms", "share", "what it did")
    total = sum(timings.stages.values())
    for stage, seconds in timings.stages.items():
        table.add_row(stage, *_numbers(seconds, total), timings.did.get(stage, ""))
        if stage == "capture":
            for part, of_it in timings.parts.get(stage, {}).items():
                table.add_row(f"  {part}", *_numbers(of_it, total), "torch")
    table.add_row("total", *_numbers(total, total), "")
    return table


def _regions(timings: Timings) -> Table:
    """What linearizing and deriving took, region by region; one that is like another takes over what that one has."""
    stages = [stage for stage in timings.parts if stage != "capture"]
    spent: dict[str, float] = {}
    for stage in stages:
        for region, seconds in timings.parts[stage].items():
            spent[region] = spent.get(region, 0.0) + seconds
    table = _table("slowest regions", "ms", *stages)
    for region in sorted(spent, key=lambda name: -spent[name])[:_SLOWEST]:
        columns = [f"{1000 * timings.parts[stage].get(region, 0.0):.1f}" for stage in stages]
        table.add_row(region, f"{1000 * spent[region]:.1f}", *columns)
    return table


def _numbers(seconds: float, total: float) -> tuple[str, str]:
    return f"{1000 * seconds:.1f}", f"{seconds / total:.0%}"


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for column in columns:
        words = column == "what it did"
        table.add_column(column, no_wrap=True, justify="left" if words else "right")
    return table
