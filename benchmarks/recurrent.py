"""An LSTM of two layers of 256 units over characters: time to compile at 32 and 256 steps, and of a training step.

python benchmarks/recurrent.py            # prints, writes benchmarks/results/recurrent.json and docs/benchmarks.md
python benchmarks/recurrent.py --quick    # fewer rounds, writes nothing

A step is of 32 sequences of 32 characters, with SGD and momentum, on one thread.
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import timing
import torch
from torch import nn
from torch.nn import functional

import altprop

ROOT = Path(__file__).parent.parent
RULES = ("dfa", "reclra", "bp", "fa")
LENGTHS = (32, 256)
CHARACTERS, WIDTH, UNITS, BATCH = 65, 32, 256, 32


class Characters(nn.Module):
    """Scores of the next character at every position, by position behind the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, WIDTH)
        self.cell = nn.LSTM(WIDTH, UNITS, 2, batch_first=True)
        self.out = nn.Linear(UNITS, CHARACTERS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Returns scores (batch, steps, characters)."""
        states, _ = self.cell(self.embed(text))
        scores: torch.Tensor = self.out(states)
        return scores


def texts(length: int, batch: int = BATCH) -> torch.Tensor:
    """Random characters, (batch, length)."""
    return torch.randint(CHARACTERS, (batch, length))


def compiled(model: nn.Module, rule: str, x: torch.Tensor) -> altprop.LocalNet:
    """Returns a net whose steps are timed."""
    return altprop.compile(model, rule, example_inputs=(x,), optimizer=altprop.optim.SGD(lr=0.01, momentum=0.9))


def compile_seconds() -> dict[str, dict[str, float]]:
    """Seconds, and seconds of a processor, that compiling takes in a process that has compiled a recurrent net."""
    compiled(Characters(), "dfa", texts(4, 2))
    found = {}
    for length in LENGTHS:
        model, x = Characters(), texts(length, 4)
        start, worked = time.perf_counter(), time.process_time()
        compiled(model, "reclra", x)
        taken = {"seconds": time.perf_counter() - start, "processor": time.process_time() - worked}
        found[str(length)] = {name: round(value, 2) for name, value in taken.items()}
    return found


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> timing.Step:
    """One step of plain autograd."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()

    return step


def run(rounds: int) -> dict[str, Any]:
    """Measures everything."""
    torch.set_num_threads(1)
    model, x, y = Characters(), texts(32), texts(32)
    candidates = {}
    for rule in RULES:
        net = compiled(copy.deepcopy(model), rule, x)
        candidates[f"altprop {rule}"] = lambda net=net: net.step(x, y)
    base = plain_step(model, x, y)
    return {
        "machine": timing.machine(),
        "compile": compile_seconds(),
        "step": timing.ratios(base, candidates, rounds=rounds, repeats=3, title="LSTM"),
    }


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [f"Processor: {results['machine']['processor']}, torch {results['machine']['torch']}, one thread.", ""]
    lines += ["| | over plain autograd (median; quartiles in brackets) |", "|---|---|", "| plain autograd | 1.00 |"]
    for name, row in results["step"].items():
        lines.append(f"| {name} | {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}) |")
    shown = [
        f"{length} steps {row['seconds']:.1f} s ({row['processor']:.1f} s of a processor)"
        for length, row in results["compile"].items()
    ]
    return "\n".join([*lines, "", f"**Compile time**: {', '.join(shown)}."])


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    results = run(5 if args.quick else args.rounds)
    print(table(results))
    if not args.quick:
        timing.save(ROOT / "benchmarks" / "results" / "recurrent.json", results)
        timing.replace_section(ROOT / "docs" / "benchmarks.md", "recurrent", table(results))


if __name__ == "__main__":
    main()
