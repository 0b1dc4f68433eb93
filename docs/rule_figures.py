"""What the benchmarks measured of one rule, as rows of a table: (what, this rule, beside it).

Each function reads one file of `benchmarks/results` and returns the rows that concern a rule, or none. A benchmark that
a new rule takes part in is on the rule's page by itself. `FIGURES` lists them in the order of the page.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator

import rule_scores
from rule_scores import RESULTS, Row, is_of, kept


@functools.cache
def outcomes() -> dict[str, str]:
    """What came of each rule on each model of the grid; the last word counts."""
    path = RESULTS / "coverage.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return {line["cell"]: line["outcome"] for line in lines}


def small_task(rule: str) -> Iterator[Row]:
    """Accuracies of `benchmarks/small_task.py`."""
    rows = {row["rule"]: row for row in kept("small_task.json").get("rows", [])}
    beside = [(label, rows[row]["test"]) for label, row in NEIGHBOURS.items() if row in rows and row != rule]
    for name, row in rows.items():
        if is_of(name, rule):
            told = f"{row['test']:.1f} % ({row['seeds']} seeds, deviation {row['spread']:.2f})"
            words = ", ".join(f"{label} {value:.1f}" for label, value in beside)
            yield "accuracy on [the small task](../rules.md#the-small-task)" + _options(name, rule), told, words


NEIGHBOURS = {"backpropagation": "bp", "frozen hidden layers": "frozen hidden layers"}


def convnets(rule: str) -> Iterator[Row]:
    """Accuracies of ResNet-20 on CIFAR-10, by `examples/cifar10.py`."""
    runs = kept("cifar10.json")
    for run in runs.values():
        text = run["settings"]["rule"]
        if "test" not in run or "control" not in run or not is_of(text, rule):
            continue
        beside = [] if rule == "bp" else [f"backpropagation {runs['bp']['test']:.1f}"]
        beside.append(f"its control {runs[run['control']]['test']:.1f}")
        what = "accuracy of [ResNet-20 on CIFAR-10](../training.md#resnet-20-on-cifar-10), two epochs"
        yield what + _options(text, rule), f"{run['test']:.1f} %", ", ".join(beside)


def dense(rule: str) -> Iterator[Row]:
    """Test errors on Fashion-MNIST, by `benchmarks/tables.py`."""
    rows = kept("tables.json").get("rows", [])
    exact = next((row["error"] for row in rows if row["rule"] == "bp"), None)
    for row in rows:
        if is_of(row["rule"], rule):
            beside = "" if rule == "bp" or exact is None else f"backpropagation {exact:.1f}"
            what = f"test error on [Fashion-MNIST](../rules.md#measured), plan {row['plan']}"
            yield what + _options(row["rule"], rule), f"{row['error']:.1f} %", beside


def two_convolutions(rule: str) -> Iterator[Row]:
    """Accuracies of the direct Kolen-Pollack paper's first experiment, by `benchmarks/dkp_table.py`."""
    runs = kept("dkp_table.json").get("runs", [])
    exact = {run["data"]: run["test"] for run in runs if run["row"] == "bp"}
    for run in sorted((run for run in runs if run["row"] == rule), key=lambda run: run["data"]):
        beside = "" if rule == "bp" else f"backpropagation {exact[run['data']]:.1f}"
        what = f"accuracy of [two convolutions](../rules.md#two-convolutions) on {run['data']}, {run['epochs']} epochs"
        yield what, f"{run['test']:.1f} %", beside


def tables(name: str) -> Iterator[tuple[str, str, str, float]]:
    """The cells of a result of the benchmarks' one form: table, row, column, value."""
    for table in kept(name).get("tables", []):
        for row, cells in table["rows"].items():
            for column, cell in cells.items():
                yield table["title"], row, column, cell["value"]


def step_times() -> Iterator[tuple[str, str, float]]:
    """Times of a step over plain autograd's, on one thread: net, rule, value."""
    for title, row, column, value in tables("steps.json"):
        if "threads" not in title:
            yield row, column, value
    for title, row, _, value in tables("targets.json"):
        if row.startswith("altprop ") and "threads" not in title:
            yield title, row.removeprefix("altprop "), value


NETS = {"MLP": "MLP 784-5x256-10, batch 128", "ResNet-20": "ResNet-20, batch 64"}
_MARK = re.compile(rf"\d+\.\d\d(<!-- ({'|'.join(NETS)}), (.+?) -->)")


def with_times(text: str) -> str:
    """A text in which each time of a step with a mark behind it, such as `0.41<!-- MLP, dfa -->`, is the kept one."""
    found = {(net, rule): value for net, rule, value in step_times()}
    return _MARK.sub(lambda mark: f"{found[NETS[mark[2]], mark[3]]:.2f}{mark[1]}", text)


def without_marks(text: str) -> str:
    """A text in which those figures stand alone."""
    return _MARK.sub(lambda mark: mark[0].removesuffix(mark[1]), text)


def times(rule: str) -> Iterator[Row]:
    """Times of a step over plain autograd's, on one thread."""
    for net, name, value in step_times():
        if is_of(name, rule):
            what = f"[time of a step](../benchmarks.md) over plain autograd's, {net}"
            yield what + _options(name, rule), f"{value:.2f}", "plain autograd 1.00"


def memory(rule: str) -> Iterator[Row]:
    """Activations that a step keeps."""
    saved = {(title, row): value for title, row, column, value in tables("memory.json") if column == "saved"}
    for (net, row), value in saved.items():
        if row == f"altprop {rule}":
            plain = f"plain autograd {saved[net, 'plain autograd']:.1f}"
            yield f"[saved activations](../benchmarks.md#memory), {net}", f"{value:.1f} MiB", plain


LIBRARIES = {
    "populations.json": "populations",
    "rounds.json": "rounds-of-predictive-coding",
    "coding_libraries.json": "predictive-coding-beside-libraries",
}


def libraries(rule: str) -> Iterator[Row]:
    """Times of a step over those of other libraries."""
    for name, anchor in LIBRARIES.items():
        for title, row, column, value in tables(name):
            own = column.removeprefix("altprop ")
            if own != column and is_of(own, rule):
                what = f"[{title[:1].lower()}{title[1:]}](../benchmarks.md#{anchor}), {row}"
                yield what + _options(own, rule), f"{value:.2f}", "theirs 1.00"


def coverage(rule: str) -> Iterator[Row]:
    """On how many models of the grid the rule ran."""
    own = [outcome for cell, outcome in outcomes().items() if cell.rpartition(" ")[2] == rule]
    if own:
        whole = sum(outcome.startswith(("yes", "to ")) for outcome in own)
        yield "models and operators that it trains whole", f"{whole} of {len(own)}", "[which](../coverage.md)"


def _options(text: str, rule: str) -> str:
    return "" if text == rule else f", as `{text}`"


FIGURES: tuple[Callable[[str], Iterator[Row]], ...] = (
    small_task,
    convnets,
    dense,
    two_convolutions,
    *rule_scores.SCORES,
    times,
    memory,
    libraries,
    coverage,
)


def figures(rule: str) -> list[Row]:
    """All that was measured of a rule."""
    return [row for one in FIGURES for row in one(rule)]
