"""Nets with parts that no gradient could train: trees, threshold units, layers that solve for their targets.

    python examples/beyond_gradients.py --seeds 3
    python examples/beyond_gradients.py --data mnist --data-dir data --subset 10000 --epochs 6

Each row is a net and the rules that teach it, beside backpropagation on the same widths and beside controls whose parts
below stay as they were made. Accuracies are of the test split, in %, as mean and spread over seeds.
"""

import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import altprop
from altprop.data import BatchSampler, DataError, DataSet
from altprop.data import load as load_data
from altprop.learners import Boosted, Forest, Inverse, Neighbours
from altprop.nn import Heaviside

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Trial:
    """One row: what is built, how it learns, on how many samples a step at least, and for how many times the epochs."""

    build: Callable[[int, int], nn.Module]
    rule: Any
    optimizer: Callable[[], Any] = lambda: altprop.optim.AdamW(lr=3e-3)
    batch: int = 0
    longer: int = 1


def plain(inputs: int, seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, CLASSES))


def threshold(inputs: int, seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), Heaviside(), nn.Linear(64, 64), Heaviside(), nn.Linear(64, CLASSES))


def trees_between(inputs: int, seed: int) -> nn.Module:
    """A random forest: each tree is fitted on all samples, and asks of few features at a time."""
    forest = Forest(64, 32, keep=20, depth=10, step=STEP, seed=1000 * seed, window=SEEN, features=FEATURES)
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), forest, nn.Linear(32, CLASSES))


def trees_followed(inputs: int, seed: int) -> nn.Module:
    """The same with smaller steps, which an inverse can follow."""
    forest = Forest(64, 32, keep=20, depth=10, step=1.0, seed=1000 * seed, window=SEEN, features=FEATURES)
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), forest, nn.Linear(32, CLASSES))


def neighbours_between(inputs: int, seed: int) -> nn.Module:
    between = Neighbours(64, 32, count=10, keep=1000, step=STEP)
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), between, nn.Linear(32, CLASSES))


def trees_above(inputs: int, seed: int) -> nn.Module:
    forest = Forest(64, CLASSES, keep=20, depth=10, step=STEP, seed=1000 * seed, window=WINDOW)
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), forest)


def trees_below(inputs: int, seed: int) -> nn.Module:
    forest = Forest(inputs, 64, keep=20, depth=10, step=STEP, seed=1000 * seed, window=WINDOW)
    return nn.Sequential(forest, nn.Linear(64, CLASSES))


class Begun(Boosted):
    """Boosted trees that begin as a random layer, so that what stands above has something to read."""

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Random features, and what the trees add to them."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.inputs, self.outputs, generator=generator) / self.inputs**0.5
        begun = torch.tanh(2 * x.reshape(len(x), -1).float() @ drawn).double()
        return begun + super().predict(x) if self.trees else begun


def trees_alone(inputs: int, seed: int) -> nn.Module:
    """Two layers of boosted trees; errors cross the upper one by trees that learn its inverse, as in mGBDT."""
    below = Begun(inputs, 64, keep=1000, depth=5, seed=1000 * seed, features=FEATURES)
    above = Boosted(64, CLASSES, keep=1000, depth=5, step=STEP, seed=1000 * seed + 300, features=FEATURES)
    back = Forest(CLASSES, 64, keep=20, depth=10, seed=1000 * seed + 600, features=FEATURES)
    return nn.Sequential(below, Inverse(above, back, sigma=0.3, seed=seed))


STEP, WINDOW, SEEN, FEATURES = 4.0, 500, 1257, 0.15
SOLVER = altprop.optim.SGD


def faster() -> Any:
    """For layers beside trees, which follow what the trees do."""
    return altprop.optim.AdamW(lr=1e-2)


def followed() -> Any:
    """The same where inverses have to follow too."""
    return altprop.optim.AdamW(lr=1e-3, feedback_lr=1e-2)


TRIALS = {
    "backpropagation": Trial(plain, "bp"),
    "least squares": Trial(plain, "ls", lambda: SOLVER(lr=1.0)),
    "inner steps towards rec-LRA's target": Trial(plain, "inner", lambda: SOLVER(lr=1.0)),
    "threshold units by rec-LRA": Trial(threshold, "reclra"),
    "an evolution strategy": Trial(plain, "es"),
    "a natural evolution strategy": Trial(plain, "snes", lambda: SOLVER(lr=1.0)),
    "the cross-entropy method": Trial(plain, "cem", lambda: SOLVER(lr=1.0)),
    "particle swarms": Trial(plain, "pso", lambda: SOLVER(lr=1.0)),
    "a genetic algorithm": Trial(plain, "ga", lambda: SOLVER(lr=1.0)),
    "targets by inner steps": Trial(plain, "steps_x", lambda: altprop.optim.Adam(lr=3e-3)),
    "threshold units by an evolution strategy": Trial(threshold, "es"),
    "threshold units by a natural one": Trial(threshold, "snes", lambda: SOLVER(lr=1.0)),
    "threshold units, hidden frozen": Trial(threshold, {"4": "bp", "*": "frozen"}),
    "trees in the middle, DFA below": Trial(trees_between, "dfa", faster),
    "trees in the middle, target propagation below": Trial(trees_followed, "tp(sigma=0.5, step=10.0)", followed),
    "trees in the middle, difference target propagation below": Trial(
        trees_followed, "dtp(sigma=0.5, step=2.0)", lambda: altprop.optim.AdamW(lr=5e-3)
    ),
    "trees in the middle, frozen below": Trial(trees_between, {"0": "frozen", "*": "dfa"}, faster),
    "neighbours in the middle, DFA below": Trial(neighbours_between, "dfa"),
    "trees as output, DFA below": Trial(trees_above, "dfa"),
    "trees as output, frozen below": Trial(trees_above, {"0": "frozen", "*": "dfa"}),
    "trees, then a linear layer": Trial(trees_below, "dfa", faster),
    "two layers of trees, errors by inverse trees": Trial(trees_alone, "bp", batch=1257, longer=2),
}


def run(trial: Trial, data: DataSet, seed: int, epochs: int, batch: int) -> float:
    """Trains one net; returns its test accuracy in %."""
    torch.manual_seed(seed)
    example = data.inputs(data.train.images[:2])
    inputs = example[0].numel()
    model = nn.Sequential(nn.Flatten(), trial.build(inputs, seed))
    rule = trial.rule
    if isinstance(rule, dict):
        rule = {glob if glob == "*" else f"1.{glob}": one for glob, one in rule.items()}
    net = altprop.compile(model, rule, example_inputs=(example,), optimizer=trial.optimizer(), seed=seed)
    sampler = BatchSampler(data, max(batch, trial.batch), seed=seed)
    for _ in range(epochs * trial.longer):
        for images, labels in sampler.epoch():
            net.step(images, labels)
    net.eval()
    right = net(data.inputs(data.test.images)).argmax(1) == data.test.labels
    return 100 * float(right.float().mean())


def table_of(found: dict[str, list[float]], title: str) -> Table:
    """The results, a row a trial."""
    table = Table("net", "test accuracy, %", "highest less lowest", title=title)
    for name, values in found.items():
        table.add_row(name, f"{statistics.mean(values):.1f}", f"{max(values) - min(values):.1f}")
    return table


def main(
    data: Annotated[str, typer.Option(help="digits, mnist or fashion-mnist.")] = "digits",
    data_dir: Annotated[str | None, typer.Option(help="Where the data sets' files are.")] = None,
    subset: Annotated[int | None, typer.Option(help="Train on so many samples only.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Samples a step.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3,
    only: Annotated[str, typer.Option(help="Run the rows whose names hold this text.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the accuracies as JSON.")] = None,
) -> None:
    """Trains every row with every seed, and prints the table."""
    try:
        loaded = load_data(data, data_dir, subset=subset)
    except DataError as error:
        raise SystemExit(f"{error}") from error
    names = [name for name in TRIALS if only in name]
    if not names:
        raise SystemExit(f'no row has "{only}" in its name; there are: {", ".join(TRIALS)}.')
    runs = [(name, seed) for name in names for seed in range(seeds)]
    found: dict[str, list[float]] = {name: [] for name in names}
    for name, seed in track(runs, disable=not sys.stderr.isatty(), console=Console(stderr=True)):
        found[name].append(run(TRIALS[name], loaded, seed, epochs, batch))
        if out is not None:
            settings = {"data": data, "samples": len(loaded.train), "epochs": epochs, "batch": batch, "seeds": seeds}
            out.write_text(json.dumps({**settings, "accuracy": found}, indent=2) + "\n", "utf-8")
    title = f"{data}, {len(loaded.train)} samples, {epochs} epochs, batch {batch}, {seeds} seeds"
    Console(width=100 if not sys.stdout.isatty() else None).print(table_of(found, title))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
