"""Time of a full step of the rules with targets and with local losses, beside plain autograd.

python benchmarks/targets.py            # prints, writes benchmarks/results/targets.json and docs/benchmarks.md
python benchmarks/targets.py --quick    # fewer rounds, writes nothing

The other side does backpropagation: these rules do more work than that by nature, since inverses and classifiers learn
as well, so their ratios may be above 1.
"""

import argparse
from pathlib import Path
from typing import Any

import timing
import torch
from step import mlp, our_step, plain_step

ROOT = Path(__file__).parent.parent
RULES = ("drtp", "dtp", "tp", "ddtp", "local_loss", "local_loss(beta=0.0)")
BATCH = 128


def measure(rounds: int) -> dict[str, Any]:
    """Times every rule right after plain autograd, round after round, with each number of threads."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    candidates = {f"altprop {rule}": our_step(mlp(), rule, x, y) for rule in RULES}
    base = plain_step(mlp(), x, y)
    found: dict[str, Any] = {"machine": timing.machine(), "step": {}}
    for count in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(count)
        title = f"MLP 784-5x256-10, batch {BATCH}, {count} threads"
        found["step"][str(count)] = timing.ratios(base, candidates, rounds=rounds, repeats=30, title=title)
    return found


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    counts = list(results["step"])
    lines = [f"Processor: {results['machine']['processor']}, torch {results['machine']['torch']}.", ""]
    lines += [f"MLP 784-5x256-10, batch {BATCH}, SGD with momentum: time of a step over that of plain autograd", ""]
    lines += ["| | " + " | ".join(f"{count} thread{'s' * (count != '1')}" for count in counts) + " |"]
    lines.append("|---|" + "---|" * len(counts))
    for name in results["step"][counts[0]]:
        cells = [results["step"][count][name] for count in counts]
        shown = " | ".join(f"{c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    results = measure(5 if args.quick else args.rounds)
    print(table(results))
    if not args.quick:
        timing.save(ROOT / "benchmarks" / "results" / "targets.json", results)
        timing.replace_section(ROOT / "docs" / "benchmarks.md", "targets", table(results))


if __name__ == "__main__":
    main()
