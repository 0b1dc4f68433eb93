"""What trainings reached under one rule, as rows of a table: (what, this rule, beside it).

Each function reads one file of `benchmarks/results` that holds scores, and returns the rows that concern a rule, or
none. The link in a row leads to the table that the row is from. `SCORES` lists the functions in the order of the page.
"""

import functools
import json
import runpy
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from altprop.rules.registry import DEFAULT

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Row = tuple[str, str, str]


@functools.cache
def kept(name: str) -> Any:
    """What a results file holds; an empty mapping where there is none."""
    path = RESULTS / name
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def is_of(text: str, rule: str) -> bool:
    """Whether a text such as "dfa(kind='channel')@edges" is of a rule; "default" is rec-LRA's."""
    text = text.replace("default", DEFAULT).partition("@")[0]
    return text == rule or text.startswith(f"{rule}(")


def scores(
    runs: Iterable[dict[str, Any]], *keys: str, score: Callable[[dict[str, Any]], float]
) -> dict[tuple[Any, ...], list[float]]:
    """The scores of runs that have these keys in common, a number a seed."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        found.setdefault(tuple(run[key] for key in keys), []).append(score(run))
    return found


def told(values: Sequence[float], unit: str = " %", digits: int = 1) -> str:
    """The mean of the seeds, and how many there are."""
    seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{unit}{seeds}"


def beside(rule: str, values: Sequence[float] | None, digits: int = 1) -> str:
    """What stands beside a rule: backpropagation, where it was measured and is not the rule itself."""
    return "" if rule == "bp" or not values else f"backpropagation {statistics.mean(values):.{digits}f}"


def option(text: str, rule: str) -> str:
    """How a rule was set, where not as usual."""
    return "" if text == rule else f", as `{text}`"


@functools.cache
def trials() -> dict[str, Any]:
    """The rule of each row of `examples/beyond_gradients.py`."""
    made = runpy.run_path(str(ROOT / "examples" / "beyond_gradients.py"))["TRIALS"]
    return {name: trial.rule for name, trial in made.items()}


def beyond_gradients(rule: str) -> Iterator[Row]:
    """Accuracies of nets with trees, threshold units and searches, by `examples/beyond_gradients.py`."""
    for name in ("beyond_gradients.json", "beyond_gradients_mnist.json"):
        found = kept(name)
        accuracy = found.get("accuracy", {})
        for title, values in accuracy.items():
            text = trials().get(title)
            if isinstance(text, str) and is_of(text, rule):
                what = f"accuracy on {found['data']}, {found['epochs']} epochs: [{title}](../learners.md#measured)"
                yield what + option(text, rule), told(values), beside(rule, accuracy["backpropagation"])


def settling(rule: str) -> Iterator[Row]:
    """Accuracies of the rules that settle, by `python -m benchmarks.rounds`."""
    found = kept("settling.json")
    accuracy = found.get("accuracy", {})
    if rule in accuracy:
        link = "[64-64-64-10](../benchmarks.md#rounds-of-predictive-coding)"
        what = f"accuracy on {found['data']}, {found['epochs']} epochs: {link}"
        yield what, told(accuracy[rule]), beside(rule, accuracy.get("bp"))


def default_rule(rule: str) -> Iterator[Row]:
    """Scores on eight small tasks, by `benchmarks/default_rule.py`, but for those of other decays."""
    runs = [run for run in kept("default_rule.json").get("runs", []) if "decay" not in run["row"]]
    found = scores(runs, "task", "row", score=lambda run: run["score"])
    for (task, row), values in found.items():
        if is_of(row, rule):
            what, unit, digits = ("loss", " nats", 2) if "Shakespeare" in task else ("accuracy", " %", 1)
            link = f"{what} on [{task}](../evidence.md#the-default-beside-backpropagation)"
            bp = beside(rule, found.get((task, "bp")), digits)
            yield link + option(row, rule), told(values, unit, digits), bp


def starts(rule: str) -> Iterator[Row]:
    """Accuracies of two small nets behind their last epoch, by `benchmarks/starts.py`."""
    runs = [{"task": "a small convnet", **run} for run in kept("starts.json").get("runs", [])]
    found = scores(runs, "task", "row", "epochs", score=lambda run: run["accuracies"][-1])
    for (task, row, epochs), values in found.items():
        if is_of(row, rule):
            what = f"accuracy on digits, {epochs} epochs: [starts of {task}](../evidence.md#starts)"
            yield what + option(row, rule), told(values), beside(rule, found.get((task, "bp", epochs)))


def audits(rule: str) -> Iterator[Row]:
    """Verdicts of `benchmarks/audits.py`, with what failed."""
    for run in kept("audits.json").get("runs", []):
        if "verdict" in run and is_of(run["row"], rule):
            what = f"[audit](../evidence.md#audits) of {run['task']}, {run['epochs']} epochs"
            failed = ", ".join(one["check"] for one in run["findings"] if one["passed"] is False)
            controls = ", ".join(f"{name} {value:.1f}" for name, value in run["scores"].items() if name != "rule")
            verdict = f"{run['verdict']}, {run['scores']['rule']:.1f} %{'; failed: ' if failed else ''}{failed}"
            yield what + option(run["row"], rule), verdict, controls


def published(rule: str) -> Iterator[Row]:
    """Test errors of published tables run anew, by `benchmarks/published.py`."""
    runs = [run for run in kept("published.json").get("runs", []) if not run["table"].endswith("settings")]
    found = scores(runs, "table", "data", "row", "epochs", score=lambda run: run["test_error"])
    rules = {(run["table"], run["row"]): str(run["settings"]["rule"]) for run in runs}
    for (table, data, row, epochs), values in found.items():
        if is_of(rules[table, row], rule) and row != "shallow head":
            link = f"[{table}](../evidence.md#{table.lower().replace(',', '').replace(' ', '-')})"
            what = f"test error on {data}, {epochs} epochs: {link}"
            yield what + option(row, rule), told(values), beside(rule, found.get((table, data, "bp", epochs)))


SCORES = (beyond_gradients, settling, default_rule, starts, audits, published)
