"""Time of a step of a population on one dense layer, over EvoTorch's SNES on the same fitness.

The fitness is the squared distance of the layer's outputs to a target, over a batch of 128. EvoTorch takes one number
for each member; altprop's rules judge each unit by its own. EvoTorch's evaluations are vectorised: one matrix product
for the whole population. `pip install evotorch` beside torch; it is needed for this benchmark alone. A figure of 1 is
EvoTorch's SNES; the row `EvoTorch PGPE` has its other searcher.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import altprop
from benchmarks.form import Table
from benchmarks.interleaved import Step, ratios

BATCH = 128
SIZES = {
    f"{inputs} inputs, {units} units, {members} members": (inputs, units, members)
    for inputs, units in ((64, 64), (256, 256), (784, 256))
    for members in (32, 128)
}
NAMES = tuple(SIZES)
PACKAGES = ("evotorch",)
RULES = ("es", "es(credit='region')", "snes", "cem")


def batch(inputs: int, units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, inputs, generator=generator), torch.randn(BATCH, units, generator=generator)


def ours(rule: str, inputs: int, units: int, members: int) -> Step:
    """One `net.step` of a layer: forward, loss, population, optimizer."""
    x, t = batch(inputs, units)
    torch.manual_seed(0)
    name, _, options = rule.partition("(")
    text = f"{name}(members={members}" + (f", {options}" if options else ")")
    net = altprop.compile(
        nn.Linear(inputs, units), text, example_inputs=(x,), loss="mse", optimizer=altprop.optim.SGD(lr=0.1)
    )
    return lambda: net.step(x, t)


def theirs(searcher: str, inputs: int, units: int, members: int) -> Step:
    """One step of a searcher of EvoTorch."""
    logging.getLogger("evotorch").setLevel(logging.ERROR)
    from evotorch import Problem, algorithms

    x, t = batch(inputs, units)

    def fitness(population: torch.Tensor) -> torch.Tensor:
        weight, bias = population.split((units * inputs, units), 1)
        outputs = x @ weight.reshape(-1, inputs).t()
        outputs = outputs.view(BATCH, -1, units) + bias
        return (outputs - t.unsqueeze(1)).square().sum((0, 2)) / 2

    problem = Problem("min", fitness, solution_length=units * (inputs + 1), initial_bounds=(-0.1, 0.1), vectorized=True)
    rates: dict[str, Any] = {"center_learning_rate": 0.1, "stdev_learning_rate": 0.1} if searcher == "PGPE" else {}
    make: Callable[..., Any] = getattr(algorithms, searcher)
    return make(problem, popsize=members, stdev_init=0.1, **rates).step


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `NAMES`."""
    rows = {}
    for name in names:
        candidates = {f"altprop {rule}": ours(rule, *SIZES[name]) for rule in RULES}
        candidates["EvoTorch PGPE"] = theirs("PGPE", *SIZES[name])
        rows[name] = ratios(theirs("SNES", *SIZES[name]), candidates, rounds, 3, name)
    return (Table("Time of a step over EvoTorch's SNES", rows),)
