"""The studies that the direct feedback alignment survey reports, run anew on Fashion-MNIST, and one of Muon.

A study has accuracies and angles.

Each run is a line of --out, which no shorter run replaces. `docs/write_evidence.py` puts them into `docs/evidence.md`.

python benchmarks/survey.py --data-dir DIR --seeds 3 --resume
python benchmarks/survey.py --data-dir DIR --study "binary feedback" --row "bp, SGD at 0.05"
python benchmarks/survey.py --memory                           # feedback of VGG-16, which is counted, not trained
"""

import argparse
import dataclasses
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any

import kept_runs
import torch
from rich.progress import track
from survey_models import FEATURES, vgg16
from survey_rows import STUDIES, Row, Study
from torch import Tensor, nn

import altprop
from altprop.data import load
from altprop.rules.feedback import DIRECT, Place

RESULTS = Path(__file__).parent / "results" / "survey.json"
DATA, BATCH, LOOKED_AT = "fashion-mnist", 64, 512
MEMORY = "memory"
# Moments that fit into one table.
_FEW = 2
ANGLES = "The update's angle behind so many epochs, in degrees:"
LEARNED = "The accuracy on the training images behind so many epochs, in per cent:"
ABOUT_MEMORY = "Launay et al. 2019 (Figure 5): one matrix for all connections of VGG-16, images of 224x224, float32."


@dataclasses.dataclass(frozen=True)
class Samples:
    """Training and test images with their labels."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def loaded(cls, folder: Path | None, count: int) -> "Samples":
        """Some of the training images, and all of the test's."""
        data = load(DATA, folder, subset=count)
        return cls(data.inputs(data.train.images), data.train.labels, data.inputs(data.test.images), data.test.labels)

    def by_chance(self, seed: int) -> "Samples":
        """The same with training labels that mean nothing."""
        drawn = torch.randint(10, self.labels.shape, generator=torch.Generator().manual_seed(seed))
        return dataclasses.replace(self, labels=drawn)


def optimizer_of(row: Row) -> altprop.optim.Optimizer:
    """The row's optimizer; Muon at a rate as Adam's, and without a decay, as Adam has none."""
    if row.optimizer == "muon":
        none = {"weight_decay": 0.0, "rest_weight_decay": 0.0}
        return altprop.optim.Muon(lr=row.lr, adjust_lr_fn="match_rms_adamw", **none)
    return altprop.optim.Adam(lr=row.lr) if row.optimizer == "adam" else altprop.optim.SGD(lr=row.lr, momentum=0.9)


def compiled(row: Row, samples: Samples, seed: int) -> altprop.LocalNet:
    """The row's net before training by its rule."""
    torch.manual_seed(seed)
    model = row.model()
    if row.taught:
        fresh = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = altprop.optim.Adam(lr=row.lr)
        teacher = altprop.compile(model, "bp", example_inputs=(samples.images[:2],), optimizer=optimizer, seed=seed)
        for _ in range(row.taught):
            learn(teacher, samples, seed)
        model.load_state_dict(
            {name: fresh[name] for name in fresh if int(name.split(".")[0]) >= FEATURES}, strict=False
        )
    given: dict[str, Any] = {} if row.plan is None else {"plan": row.plan}
    example = (samples.images[:2],)
    return altprop.compile(model, row.rule, example_inputs=example, optimizer=optimizer_of(row), seed=seed, **given)


def learn(net: altprop.LocalNet, samples: Samples, seed: int) -> None:
    """One epoch."""
    net.train()
    order = torch.randperm(len(samples.images), generator=torch.Generator().manual_seed(seed))
    for chosen in order.split(BATCH):
        net.step(samples.images[chosen], samples.labels[chosen])


def look(net: altprop.LocalNet, samples: Samples) -> dict[str, float]:
    """Accuracies in per cent; mean angles of hidden regions, between update and gradient and of the feedback."""
    found = net.measure(samples.images[:LOOKED_AT], samples.labels[:LOOKED_AT])
    outputs = {region.name for region in net.graph.regions if region.is_output}
    angles = [row.angle for name, row in found.regions.items() if name not in outputs and not math.isnan(row.angle)]
    net.eval()
    return {
        "test": _accuracy(net, samples.test_images, samples.test_labels),
        "train": _accuracy(net, samples.images, samples.labels),
        "angle": round(statistics.mean(angles), 1) if angles else math.nan,
        "feedback_angle": round(found.feedback_angle, 1),
    }


def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        right = sum(
            int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        )
    return round(100 * right / len(labels), 2)


def run(name: str, row: Row, seed: int, folder: Path | None, moments: tuple[int, ...]) -> kept_runs.Run:
    """Trains once; returns what the file keeps."""
    study = STUDIES[name]
    samples = Samples.loaded(folder, study.samples)
    samples = samples.by_chance(seed) if row.chance else samples
    begin = time.process_time()
    net = compiled(row, samples, seed)
    looks = []
    for before, moment in itertools.pairwise((0, *moments)):
        for epoch in track(range(before, moment), f"{name}: {row.label}, seed {seed}", transient=True):
            learn(net, samples, 1000 * seed + epoch)
        looks.append({"epoch": moment} | look(net, samples))
    own = {"table": name, "row": row.label, "data": DATA, "seed": seed, "epochs": moments[-1]}
    seconds = round(time.process_time() - begin, 1)
    looks = [{key: None if value != value else value for key, value in one.items()} for one in looks]
    return own | {"samples": len(samples.images), "looks": looks, "seconds": seconds}


def memory() -> kept_runs.Run:
    """GiB of feedback, in float32, from the 1000 outputs of VGG-16 to its hidden regions, by kind."""
    report = altprop.examine(vgg16(), (torch.zeros(2, 3, 224, 224),))
    assert report.graph is not None
    hidden = [region for region in report.graph.regions if not region.is_output]
    output = next(region for region in report.graph.regions if region.is_output)
    sizes = {}
    for kind in ("dense", "unified", "binary"):
        parts = [DIRECT[kind].parts(Place(output, region, {})) for region in hidden]
        each = [sum(math.prod(p.shape) * (1 if p.dtype == "uint8" else 4) for p in own) for own in parts]
        sizes[kind] = round((max(each) if kind == "unified" else sum(each)) / 1e9, 2)
    return {"table": MEMORY, "row": "VGG-16", "data": "", "seed": 0, "epochs": 0, "gigabytes": sizes}


def table(name: str, runs: list[kept_runs.Run]) -> str:
    """Returns a study's runs as Markdown: means over seeds, in brackets how far the best and the worst are apart.

    A study of many moments has a second table, of the accuracy on the training images.
    """
    own = [one for one in runs if one["table"] == name]
    rows = {row.label: [one["looks"] for one in own if one["row"] == row.label] for row in STUDIES[name].rows}
    rows = {label: looks for label, looks in rows.items() if looks}
    epochs = [look["epoch"] for look in own[0]["looks"]]
    if len(epochs) <= _FEW:
        return _moments(rows, [f"update's angle, epoch {epoch}" for epoch in epochs], "angle")
    heads = [str(epoch) for epoch in epochs]
    angles, learned = _moments(rows, heads, "angle"), _moments(rows, heads, "train", with_test=False)
    return f"{ANGLES}\n\n{angles}\n\n{LEARNED}\n\n{learned}"


def _moments(rows: dict[str, list[Any]], heads: list[str], what: str, *, with_test: bool = True) -> str:
    """A line a row, a column a moment; with the number of seeds and the test accuracy in front."""
    first = ["row", "seeds", "test accuracy, %"] if with_test else ["row"]
    lines = [f"| {' | '.join([*first, *heads])} |", "|---" * (len(first) + len(heads)) + "|"]
    for label, looks in rows.items():
        cells = [_mean([one[at][what] for one in looks]) for at in range(len(heads))]
        lines.append(f"| {' | '.join([label, *(_tests(looks) if with_test else []), *cells])} |")
    return "\n".join(lines)


def _tests(looks: list[Any]) -> list[str]:
    """How many seeds, and their accuracy on the test images behind training."""
    tests = [one[-1]["test"] for one in looks]
    spread = f" ({max(tests) - min(tests):.1f})" if len(tests) > 1 else ""
    return [str(len(looks)), f"{statistics.mean(tests):.1f}{spread}"]


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.0f}" if known else ""


def memory_table(made: kept_runs.Run) -> str:
    """Returns the sizes as Markdown, beside the survey's (Figure 5)."""
    theirs = {"dense": "55", "unified": "13"}
    lines = ["| feedback of VGG-16 | ours, GB | theirs, GB |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {k} | {v:.1f} | {theirs.get(k, '')} |" for k, v in made["gigabytes"].items())])


def wanted(args: argparse.Namespace) -> list[tuple[str, Row, int, tuple[int, ...]]]:
    """All runs that are asked for, the first seed of all first."""
    made = []
    for seed in range(args.seeds):
        for name in args.study or STUDIES:
            study: Study = STUDIES[name]
            moments = study.moments if args.epochs is None else (args.epochs,)
            for row in study.rows:
                key = {"table": name, "row": row.label, "data": DATA, "seed": seed, "epochs": moments[-1]}
                held = args.resume and kept_runs.holds(args.out, key)
                if not held and (not args.row or row.label in args.row):
                    made.append((name, row, seed, moments))
    return made


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets; else ALTPROP_DATA, or ./data")
    parser.add_argument("--study", action="append", choices=list(STUDIES), help="only this one; may be given again")
    parser.add_argument("--row", action="append", help="only this one; may be given again")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="in the place of the study's own")
    parser.add_argument("--resume", action="store_true", help="leave out what the file holds as long already")
    parser.add_argument("--memory", action="store_true", help="only count the feedback of VGG-16")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take")
    return parser.parse_args()


def main() -> None:
    """Trains, prints and writes."""
    args = arguments()
    torch.set_num_threads(1)
    kept_runs.check_rows(args.row, (row.label for name in args.study or STUDIES for row in STUDIES[name].rows))
    if args.memory:
        made = memory()
        kept_runs.keep(args.out, made)
        print(memory_table(made))
        return
    jobs = wanted(args)
    known = [one["seconds"] / one["epochs"] / one["samples"] for one in kept_runs.read(args.out) if one["epochs"]]
    each = statistics.mean(known) if known else math.nan
    seconds = each * sum(STUDIES[name].samples * moments[-1] for name, _, _, moments in jobs)
    print(
        f"{len(jobs)} runs; {'unknown: none has run yet' if not known else f'{seconds / 60:.0f} minutes of one core'}"
    )
    for name, row, seed, moments in [] if args.dry_run else jobs:
        found = run(name, row, seed, args.data_dir, moments)
        note = "" if kept_runs.keep(args.out, found) else "; a longer run is in the file and stays"
        last = found["looks"][-1]
        print(f"{name}: {row.label}, seed {seed}: {last['test']} %, angle {last['angle']}{note}", flush=True)


if __name__ == "__main__":
    main()
