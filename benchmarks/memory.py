"""Activations that a training step holds at its peaks, beside what plain autograd saves.

python benchmarks/memory.py          # prints, writes benchmarks/results/memory.json and docs/benchmarks.md

*Saved* is what the forward made and an update still has to read; *live* is everything that the program made and has
not freed. Parameters, gradients and inputs are not counted.
"""

from pathlib import Path
from typing import Any

import timing
import torch
from step import WORK, saved_by_autograd

import altprop

ROOT = Path(__file__).parent.parent
RULES = ("bp", "fa", "dfa", "reclra", "drtp", "local_loss")
MIB = 2**20


def measure() -> dict[str, Any]:
    """Counts every rule on every piece of work."""
    found: dict[str, Any] = {}
    for name, (make, shape) in WORK.items():
        x, y = torch.randn(shape), torch.randint(0, 10, (shape[0],))
        found[name] = {"plain autograd": {"saved": round(saved_by_autograd(make(), x), 2)}}
        for rule in (rule for rule in RULES if rule in altprop.rules.available()):
            held = altprop.compile(make(), rule=rule, example_inputs=(x,)).memory(x, y)
            found[name][f"altprop {rule}"] = {
                "saved": round(held.saved / MIB, 2),
                "live": round(held.live / MIB, 2),
            }
    return found


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    heads = [f"{name}: {kind}" for name in results for kind in ("saved", "live")]
    lines = ["| MiB | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row in next(iter(results.values())):
        found = [results[name][row].get(kind) for name in results for kind in ("saved", "live")]
        lines.append(f"| {row} | " + " | ".join("" if mib is None else f"{mib:.1f}" for mib in found) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and writes."""
    results = measure()
    print(table(results))
    timing.save(ROOT / "benchmarks" / "results" / "memory.json", results)
    timing.replace_section(ROOT / "docs" / "benchmarks.md", "memory", table(results))


if __name__ == "__main__":
    main()
