"""Fashion-MNIST by rec-LRA and by backprop, both at the compiler's default settings.

    python examples/fashion_mnist.py --data-dir data --epochs 10 --seeds 0,1,2

The network is that of the rec-LRA paper's Table 1: 784-5x256-10 with tanh, pixels in [0, 1], 58,000 training,
2,000 validation and 10,000 test images. Both rules get the same AdamW inside the program, the same initial
weights and the same batches. The paper reports a test error of 11.87 % by rec-LRA and 12.98 % by backprop.
"""

import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import altprop
from altprop.data import BatchSampler, DataError, DataSet, load
from altprop.models import MLP
from altprop.training import evaluate
from altprop.training.records import write_json

RULES = {"rec-LRA": "reclra", "backprop": "bp"}


def compile_net(rule: str, lr: float, seed: int) -> altprop.LocalNet:
    """Compile the network with nothing but defaults."""
    torch.manual_seed(seed)
    model = MLP((1, 28, 28), 10, hidden=[256] * 5, activation="tanh")
    example = torch.zeros(2, 1, 28, 28)
    optimizer = altprop.optim.AdamW(lr=lr)
    return altprop.compile(model, rule=rule, example_inputs=(example,), optimizer=optimizer, seed=seed)


def run(
    data: DataSet, label: str, seed: int, epochs: int, batch_size: int, lr: float, progress: Progress
) -> dict[str, Any]:
    """Train once, and return the test error in percent and the validation error after each epoch."""
    net = compile_net(RULES[label], lr, seed)
    sampler = BatchSampler(data, batch_size, seed=seed)
    task = progress.add_task(f"{label}, seed {seed}", total=epochs * len(sampler), state="")
    errors: list[float] = []
    for _ in range(epochs):
        for step, (inputs, labels) in enumerate(sampler.epoch()):
            loss = net.step(inputs, labels)
            state = f"loss {loss.item():.3f}" + (f"  validation error {errors[-1]:.2f} %" if errors else "")
            progress.update(task, advance=1, **({"state": state} if step % 50 == 0 else {}))
        errors.append(100 * (1 - evaluate(net, data, data.validation).accuracy))
    test = 100 * (1 - evaluate(net, data, data.test).accuracy)
    progress.update(task, state=f"test error {test:.2f} %")
    return {"rule": label, "seed": seed, "test_error_percent": test, "validation_errors_percent": errors}


def compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return both mean test errors and their ratio."""
    means = {
        label: statistics.fmean(run["test_error_percent"] for run in runs if run["rule"] == label) for label in RULES
    }
    return {
        "test_error_percent": means,
        "ratio": means["rec-LRA"] / means["backprop"] if means["backprop"] else None,
        "runs": runs,
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """Print every run, the means and their ratio."""
    table = Table(title="Fashion-MNIST, 784-5x256-10 tanh, 10,000 test images")
    for name in ("rule", "seed", "test error"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    for run in summary["runs"]:
        table.add_row(run["rule"], str(run["seed"]), f"{run['test_error_percent']:.2f} %")
    table.add_section()
    for label, mean in summary["test_error_percent"].items():
        table.add_row(label, "mean", f"{mean:.2f} %")
    console.print(table)
    if summary["ratio"] is not None:
        console.print(f"rec-LRA's test error is {summary['ratio']:.3f} times backprop's", highlight=False)


def parse_seeds(text: str) -> list[int]:
    """Read "0,1,2"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"'{text}' is not a list of seeds, such as 0,1,2")
    return [int(part) for part in parts]


def main(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the data sets' files are.", show_default="$ALTPROP_DATA or data"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 100,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of AdamW.")] = 1e-3,
    subset: Annotated[int | None, typer.Option(min=1, help="Train on so many samples only.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file for the numbers.")] = Path("results/fashion_mnist.json"),
) -> None:
    """Train a fully connected network on Fashion-MNIST by rec-LRA and by backprop, and compare."""
    console = Console()
    numbers = parse_seeds(seeds)
    try:
        data = load("fashion-mnist", data_dir, subset=subset)
    except DataError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if threads:
        torch.set_num_threads(threads)
    columns = ("{task.description}", "{task.fields[state]}")
    bar = (TextColumn(columns[0]), BarColumn(), MofNCompleteColumn(), TextColumn(columns[1]))
    with Progress(*bar, TimeRemainingColumn(), console=console) as progress:
        runs = [run(data, label, seed, epochs, batch_size, lr, progress) for seed in numbers for label in RULES]
    summary = compare(runs) | {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "samples": len(data.train),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary)
    show(summary, console)
    console.print(f"written to {out}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
