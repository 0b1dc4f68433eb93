"""Writes the tables of docs/learners.md, and its picture, from what `examples/beyond_gradients.py --out` kept.

python docs/write_learners.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
KEPT = {"digits": RESULTS / "beyond_gradients.json", "mnist": RESULTS / "beyond_gradients_mnist.json"}
PICTURE = DOCS / "beyond_gradients.svg"


def table(found: dict[str, Any]) -> str:
    """The accuracies, a row a net."""
    lines = ["| net | mean | highest less lowest | seeds |", "|---|---|---|---|"]
    for name, values in found["accuracy"].items():
        spread = f"{max(values) - min(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {name} | {statistics.mean(values):.1f} | {spread} | {len(values)} |")
    return "\n".join(lines)


def with_table(text: str, name: str, new: str) -> str:
    """A page with another table between the marks of one."""
    head, rest = text.split(f"<!-- {name}:begin -->\n", 1)
    return f"{head}<!-- {name}:begin -->\n{new}\n<!-- {name}:end -->{rest.split(f'<!-- {name}:end -->', 1)[1]}"


def draw(found: dict[str, Any], path: Path) -> None:
    """A bar a net, with a line from the lowest to the highest seed."""
    rows = list(reversed(found["accuracy"].items()))
    figure = Figure(figsize=(7.0, 0.32 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(rows):
        axes.barh(place, statistics.mean(values), color="#c8c8c8" if "frozen" in name else "#4878a8")
        axes.plot([min(values), max(values)], [place, place], color="black", linewidth=1.2)
    axes.set(
        yticks=range(len(rows)), xlim=(0, 100), xlabel="test accuracy, %; grey: what is below stays as it was made"
    )
    axes.set_yticklabels([name for name, _ in rows])
    with rc_context({"svg.hashsalt": "altprop"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Writes both tables, and draws the nets on MNIST."""
    page = DOCS / "learners.md"
    text = page.read_text("utf-8")
    for name, path in KEPT.items():
        text = with_table(text, name, table(json.loads(path.read_text("utf-8"))))
    page.write_text(text, "utf-8")
    draw(json.loads(KEPT["mnist"].read_text("utf-8")), PICTURE)


if __name__ == "__main__":
    main()
