"""Trains the same two networks by rec-LRA, by DFA and by backprop, and leaves a folder to look at.

    python examples/demo.py --out results/demo

The networks are a small convolutional net with batch norm and a residual net of 20 layers; the data are the
8x8 digits that come with scikit-learn. Initial weights and the order of the batches are the same for all
three rules. Backprop runs through the same compiler, with exact transpose feedback. Open `index.html` there.
"""

import html
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from altprop.command.progress import ProgressReporter
from altprop.training import Result, make_config, train
from altprop.training.plots import plot_curves
from altprop.training.records import write_csv, write_json, write_text

MODELS = ("convnet", "resnet20")
RULES = {"rec-LRA": "reclra", "DFA": "dfa", "backprop": "bp"}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>altprop: demo</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }} td, th {{ padding: .2rem .8rem; text-align: left }}</style>
<h1>One network, three learning rules</h1>
<p>Digits of scikit-learn: {samples} training images, {epochs} epochs, AdamW at {lr:g}, the same initial
weights and the same batches for each rule. Backprop runs through the same compiler, with exact transpose
feedback.</p>
<table>{rows}</table>
{pictures}
"""


@dataclass(frozen=True)
class Entry:
    """One network trained by one rule."""

    model: str
    label: str
    folder: Path
    result: Result

    def row(self) -> dict[str, Any]:
        """Return the numbers for the table."""
        return {"model": self.model, "rule": self.label, **self.result.summary()}


def run_all(out: Path, flags: dict[str, Any]) -> Iterator[Entry]:
    """Train each network by each rule, each in a folder of its own, and draw its error pathways."""
    for model in MODELS:
        for label, rule in RULES.items():
            folder = out / f"{model}-{rule}"
            config = make_config(flags={**flags, "model": model, "rule": rule})
            with ProgressReporter(f"{model} by {label}", lines=False) as reporter:
                result = train(config, folder, overwrite=True, reporter=reporter)
            result.net.graph.draw(folder / "pathway.svg")
            yield Entry(model, label, folder, result)


def show(entries: list[Entry], console: Console) -> None:
    """Print the comparison."""
    table = Table(title="scikit-learn digits, 360 test images")
    for name in ("network", "rule"):
        table.add_column(name)
    for name in ("test accuracy", "test loss", "median epoch", "parameters"):
        table.add_column(name, justify="right")
    for entry in entries:
        table.add_row(*cells(entry), end_section=entry.label == list(RULES)[-1])
    console.print(table)


def cells(entry: Entry) -> tuple[str, ...]:
    """Write an entry's numbers as a person reads them."""
    result = entry.result
    accuracy, loss = f"{100 * result.test.accuracy:.2f} %", f"{result.test.loss:.4f}"
    epoch = f"{1000 * statistics.median(row['seconds'] for row in result.history):.0f} ms"
    return entry.model, entry.label, accuracy, loss, epoch, f"{result.parameters:,}"


def write_page(out: Path, entries: list[Entry], flags: dict[str, Any], samples: int) -> None:
    """Write the page that shows everything."""
    heads = ("network", "rule", "test accuracy", "test loss", "median epoch", "parameters", "files")
    rows = [f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
    for entry in entries:
        data = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(entry))
        rows.append(f"<tr>{data}<td>{links(entry.folder)}</td></tr>")
    pictures = [f'<h2>{name}</h2><img src="curves-{name}.png" alt="learning curves">' for name in MODELS]
    pictures += [
        f"<h2>Error pathways of {entry.model} by {entry.label}</h2>"
        f'<img src="{entry.folder.name}/pathway.svg" alt="graph">'
        for entry in entries
        if entry.model == "convnet"
    ]
    page = PAGE.format(
        samples=samples,
        epochs=flags["epochs"],
        lr=flags["lr"],
        rows="\n".join(rows),
        pictures="\n".join(pictures),
    )
    write_text(out / "index.html", page)


def links(folder: Path) -> str:
    """Link the files that a run left."""
    files = {
        "pathways": "pathway.svg",
        "wiring plan": "plan.json",
        "parameters": "explain.csv",
        "curves": "curves.png",
        "numbers": "metrics.csv",
        "checkpoint": "checkpoint.pt",
    }
    return ", ".join(f'<a href="{folder.name}/{file}">{name}</a>' for name, file in files.items())


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("results/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 20,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of AdamW.")] = 3e-3,
    subset: Annotated[int | None, typer.Option(min=1, help="Train on so many samples only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; one is enough for images this small.")] = 1,
) -> None:
    """Train two networks by three learning rules, and compare."""
    # The same settings for every rule: a rule's own recipe would compare recipes.
    flags = {"optimizer": "adamw", "lr_schedule": "constant", "lr": lr, "epochs": epochs}
    flags |= {"data": "digits", "subset": subset, "seed": seed, "threads": threads}
    entries = list(run_all(out, flags))
    for model in MODELS:
        curves = {entry.label: entry.result.history for entry in entries if entry.model == model}
        plot_curves(out / f"curves-{model}.png", curves, f"{model} on digits")
    rows = [entry.row() for entry in entries]
    write_csv(out / "summary.csv", rows)
    write_json(out / "summary.json", rows)
    write_page(out, entries, flags, subset or 1257)
    console = Console()
    show(entries, console)
    console.print(f"Open {out / 'index.html'}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
