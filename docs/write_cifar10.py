"""Writes the table of ResNet-20 on CIFAR-10 into `docs/training.md`, from what `examples/cifar10.py` kept.

    python examples/cifar10.py --jobs 2 --threads 1 --out benchmarks/results/cifar10.json
    python docs/write_cifar10.py

It also copies the picture beside the results to `docs/cifar10.svg`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "cifar10.json"
BEGIN, END = "<!-- cifar10:begin -->", "<!-- cifar10:end -->"
CONTROL = "output layer alone"


def table(runs: dict[str, Any]) -> str:
    """The rules, best first, each with its control, and the best of all controls."""
    trained = {label: run for label, run in runs.items() if "test" in run}
    best = max((run["test"], label) for label, run in trained.items() if label.startswith(CONTROL))
    lines = ["| rule | settings | after each epoch, % | test, % | its control, % |", "|---|---|---|---|---|"]
    for label, run in sorted(trained.items(), key=lambda item: -item[1]["test"]):
        kept = run["settings"]
        name = f"*{CONTROL}*, the best" if label == best[1] else f"`{kept['rule']}`"
        own = f"{trained[run['control']]['test']:.1f}" if "control" in run else ""
        if label.startswith(CONTROL) and label != best[1]:
            continue
        epochs = ", ".join(f"{accuracy:.1f}" for accuracy in run["validation"])
        words = ", ".join(f"{key}={kept[key]:g}" for key in ("lr", "feedback_lr", "weight_decay") if key in kept)
        words += coarseness(kept.get("regions"))
        lines.append(f"| {name} | {kept['optimizer']}, {words} | {epochs} | {run['test']:.1f} | {own} |")
    rules = {run["settings"]["rule"]: run for run in trained.values() if "control" in run}
    behind = [rule for rule, run in rules.items() if run["test"] <= trained[run["control"]]["test"]]
    also = [rule for rule, run in rules.items() if run["test"] <= best[0] and rule not in behind]
    if rules:
        lines += ["", f"Not better than their own control: {', '.join(f'`{rule}`' for rule in behind) or 'none'}."]
        lines += [f"Better than that, but not than the best control: {', '.join(f'`{r}`' for r in also) or 'none'}."]
    refused = {label: run["refused"] for label, run in runs.items() if "refused" in run}
    return "\n".join([*lines, *(f"`{label}` does not compile: {why}" for label, why in refused.items())])


def coarseness(regions: Any) -> str:
    """Says how a run was cut, where it was not layer by layer."""
    if regions == "block":
        return ", one signal a block"
    return f", one region a module `{'`, `'.join(regions)}`" if isinstance(regions, list) else ""


def main() -> None:
    """Write the table between its marks."""
    page = (DOCS / "training.md").read_text("utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    made = table(json.loads(RESULTS.read_text("utf-8")))
    (DOCS / "training.md").write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", "utf-8")
    if RESULTS.with_suffix(".svg").exists():
        shutil.move(RESULTS.with_suffix(".svg"), DOCS / "cifar10.svg")


if __name__ == "__main__":
    main()
