"""ResNet-20 on CIFAR-10 by every rule, each beside a control whose features stay as they were drawn.

    python examples/cifar10.py --data-dir data --threads 2
    python examples/cifar10.py --data-dir data --device cuda --jobs 8
    python examples/cifar10.py --data-dir data --rules dfa,reclra --epochs 1 --train-size 9000

All rules get the same initial weights and the same batches, each its own recipe (`altprop rules` lists them) unless
`SETTINGS` says otherwise, and a learning rate that falls to zero along a cosine, step by step. A *control* trains the
output layer alone, on features of random convolutions: every rule has one with its own optimizer, rates and decay, and
there is one more at the rate that suits such a layer best. Every finished run is written to the results file at once;
what it holds under the same settings is not trained again, so that a run can be broken off and taken up.
"""

import dataclasses
import functools
import json
import math
import multiprocessing
import statistics
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import altprop
from altprop.data import BatchSampler, DataError, DataSet, load
from altprop.models import build
from altprop.training import RunConfig, TrainingError, evaluate
from altprop.training.build import build_net, check_device
from altprop.training.records import write_json

CONTROL = "output layer alone"
# What differs from a rule's recipe, by rule, and why.
SETTINGS: dict[str, dict[str, Any]] = {
    # One layer on fixed features wants a higher rate than twenty that learn together.
    CONTROL: {"lr": 0.01},
    # The output averages every channel over space, so the true gradient is one value a channel, up to the activation.
    **{name: {"rule": f"{name}(kind='channel')"} for name in ("dfa", "dkp")},
    "sdfa": {"rule": "sdfa(kind='channel')", "lr": 0.01},
    # With a target at every layer it ends where its control does; with one a block, and exact gradients inside, above.
    "drtp": {"rule": "drtp(kind='channel')", "regions": "block", "lr": 2e-3},
    "reclra": {"rule": "reclra(kind='channel')", "lr": 3e-3, "lr_schedule": "cosine"},
    # At a beta of 0.1 errors fade from layer to layer, and of twenty layers the first would get none that counts; error
    # synapses of the weights' own shape learn what a convolution does, where those by position see its middle alone.
    "lra_e": {"rule": "lra_e(beta=0.5, kind='forward')"},
    # A matrix between two maps of the first stage would hold 16,384 x 16,384 numbers.
    "dtp": {"rule": "dtp(inverse='convolution')"},
    # Nothing corrects for what the inverses do not know, so that twenty in a row lead astray, and three do not.
    "tp": {"rule": "tp(inverse='convolution')", "regions": ["stage?"]},
}
POINTS = 16
"""Points of the training curve in every epoch."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What every rule is given: the data, and how long it may learn."""

    data: DataSet
    epochs: int
    batch_size: int
    seed: int

    @property
    def device(self) -> torch.device:
        """Where the data are, and the model goes."""
        return self.data.train.images.device

    def config(self, label: str, **more: Any) -> RunConfig:
        """The settings of a run: the rule's recipe, and what differs from it."""
        rule = "bp" if label.startswith(CONTROL) else label
        own = {"rule": rule, "epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed}
        return RunConfig.model_validate(own | SETTINGS.get(label, {}) | more)

    def settings(self, config: RunConfig) -> dict[str, Any]:
        """Everything that decides the numbers of a run, as JSON holds it."""
        kept = {"rule", "plan", "regions", "optimizer", "lr", "momentum", "weight_decay", "feedback_lr", "epochs"}
        kept |= {"feedback_weight_decay", "lr_schedule", "batch_size", "seed"}
        return {**config.model_dump(mode="json", include=kept, exclude_none=True), "samples": len(self.data.train)}


def control_of(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """The control of a rule: its label, and the settings that it has of the rule."""
    shared = ("optimizer", "lr", "momentum", "nesterov", "weight_decay", "lr_schedule")
    own = {key: value for key in shared if (value := getattr(config, key)) not in (None, False)}
    text = ", ".join(str(value) if key == "optimizer" else f"{key}={value}" for key, value in own.items())
    return f"{CONTROL}, {text}", own


def train(task: Task, label: str, config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Train once; returns the settings, the curve of the training loss, and accuracies in percent."""
    torch.manual_seed(task.seed)
    model = build("resnet20", task.data.shape, task.data.classes).to(task.device)
    if label.startswith(CONTROL):
        model.requires_grad_(False)
        model.fc.requires_grad_(True)
    net = build_net(config, model, task.data.inputs(task.data.train.images[:2]))
    sampler = BatchSampler(task.data, task.batch_size, seed=task.seed)
    bar = progress.add_task(label, total=task.epochs * len(sampler), state="")
    curve: list[float] = []
    validation: list[float] = []
    for epoch in range(task.epochs):
        losses: list[torch.Tensor] = []
        for step, (inputs, labels) in enumerate(sampler.epoch(), start=epoch * len(sampler)):
            set_rates(net, config, step / (task.epochs * len(sampler)))
            losses.append(net.step(inputs, labels).clone())
            if step % 20 == 0:  # reading a number waits for a GPU
                progress.update(bar, completed=step, state=f"loss {losses[-1].item():.3f}")
        curve += means([loss.item() for loss in losses], POINTS)
        validation.append(100 * evaluate(net, task.data, task.data.validation).accuracy)
        progress.update(bar, state=f"validation accuracy {validation[-1]:.1f} %")
    test = 100 * evaluate(net, task.data, task.data.test).accuracy
    return {"settings": task.settings(config), "loss": curve, "validation": validation, "test": round(test, 2)}


def set_rates(net: altprop.LocalNet, config: RunConfig, done: float) -> None:
    """Set the learning rates, of weights and feedback, when a share of the run is done."""
    share = 0.5 * (1 + math.cos(math.pi * done))
    net.optimizer.lr = config.lr * share
    net.optimizer.feedback_lr = (config.lr if config.feedback_lr is None else config.feedback_lr) * share


def means(losses: list[float], points: int) -> list[float]:
    """The means of runs of losses, each of the same length."""
    size = max(1, len(losses) // points)
    return [round(statistics.fmean(losses[i : i + size]), 4) for i in range(0, len(losses) - size + 1, size)]


def attempt(task: Task, label: str, config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Train once, or say why the rule does not compile."""
    try:
        return train(task, label, config, progress)
    except altprop.CompileError as error:
        return {"settings": task.settings(config), "refused": str(error)}


class Here(Executor):
    """Trains in this process, one run after the other, each with a bar of its own."""

    def __init__(self, task: Task, progress: Progress) -> None:
        self.task, self.progress = task, progress

    def submit(self, label: str, config: RunConfig) -> "Future[dict[str, Any]]":  # type: ignore[override]
        """Train at once; returns what is done."""
        done: Future[dict[str, Any]] = Future()
        done.set_result(attempt(self.task, label, config, self.progress))
        return done


class There(ProcessPoolExecutor):
    """Trains in processes of their own, several runs at once."""

    def __init__(self, jobs: int, make: Callable[[], Task]) -> None:
        super().__init__(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make,))

    def submit(self, label: str, config: RunConfig) -> "Future[dict[str, Any]]":  # type: ignore[override]
        """Train as soon as a process is free."""
        return super().submit(_attempt_there, label, config)


_task: Task
"""The task of a process of `There`."""


def _begin(make: Callable[[], Task]) -> None:
    global _task
    torch.set_num_threads(1)
    _task = make()


def _attempt_there(label: str, config: RunConfig) -> dict[str, Any]:
    return attempt(_task, label, config, Progress(disable=True))


def make_task(data_dir: Path | None, train_size: int | None, device: str, *rest: int) -> Task:
    """Load the data to a device: `rest` is the epochs, the batch size and the seed."""
    place = check_device(device)
    return Task(load("cifar10", data_dir, subset=train_size).to(place), *rest)


def run_all(
    task: Task,
    labels: list[str],
    out: Path,
    more: dict[str, Any],
    console: Console,
    jobs: int = 1,
    make: Callable[[], Task] | None = None,
) -> dict[str, Any]:
    """Train every rule that the results file does not hold yet under these settings; returns all that it holds.

    Args:
        jobs: runs at once; above one, each in a process of its own.
        make: makes the task anew in such a process.
    """
    runs: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {}
    queue = deque((label, task.config(label, **more)) for label in labels)
    rules, asked = set(labels) - {CONTROL}, set(labels)
    running: dict[Future[dict[str, Any]], str] = {}

    def keep(label: str, found: dict[str, Any]) -> None:
        runs[label] = found
        if label in rules and "test" in found:
            found["control"], own = control_of(task.config(label, **more))
            if found["control"] not in asked:
                asked.add(found["control"])
                queue.appendleft((found["control"], task.config(found["control"], **own)))
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, runs)

    with progress_bars(console) as progress:
        whole = progress.add_task("runs", total=None, state="", visible=jobs > 1)
        with Here(task, progress) if jobs == 1 or make is None else There(jobs, make) as pool:
            while queue or running:
                if queue and len(running) < jobs:
                    label, config = queue.popleft()
                    if label in runs and runs[label].get("settings") == task.settings(config):
                        keep(label, runs[label])
                    else:
                        running[pool.submit(label, config)] = label
                    if jobs > 1:
                        continue
                for done in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    keep(running.pop(done), done.result())
                progress.update(whole, completed=len(asked) - len(queue) - len(running), total=len(asked))
    return runs


def progress_bars(console: Console) -> Progress:
    """A bar for each run, with what it is at."""
    done, state = MofNCompleteColumn(), TextColumn("{task.fields[state]}")
    return Progress(
        TextColumn("{task.description:18}"), BarColumn(), done, state, TimeRemainingColumn(), console=console
    )


def show(runs: dict[str, Any], console: Console) -> None:
    """Print the table, best first, and the rules that stay behind their controls."""
    table = Table(title="ResNet-20 on CIFAR-10, 10,000 test images")
    for name in ("rule", "last loss", "validation", "test accuracy", "its control"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    trained = {label: run for label, run in runs.items() if "test" in run}
    best = max((run["test"] for label, run in trained.items() if label.startswith(CONTROL)), default=0.0)
    for label, run in sorted(trained.items(), key=lambda item: -item[1]["test"]):
        if label.startswith(CONTROL) and label != CONTROL:
            continue
        control = f"{trained[run['control']]['test']:.1f} %" if "control" in run else ""
        cells = (f"{run['loss'][-1]:.3f}", f"{run['validation'][-1]:.1f} %", f"{run['test']:.1f} %", control)
        table.add_row(label, *cells, style="bold" if label == CONTROL else None)
    console.print(table)
    for label, run in runs.items():
        if "refused" in run:
            console.print(f"{label} does not compile: {run['refused']}", highlight=False, markup=False)
    rules = {label: run for label, run in trained.items() if "control" in run}
    behind = [label for label, run in rules.items() if run["test"] <= trained[run["control"]]["test"]]
    console.print(f"not better than their own control: {', '.join(behind) or 'none'}", highlight=False)
    behind = [label for label, run in rules.items() if run["test"] <= best]
    console.print(f"not better than the best control, {best:.1f} %: {', '.join(behind) or 'none'}", highlight=False)


def plot(runs: dict[str, Any], path: Path) -> None:
    """Draw the training losses, and the accuracies on the test as bars."""
    # Slow to import, and only wanted here.
    from matplotlib.figure import Figure

    trained = {k: run for k, run in runs.items() if "test" in run and (k == CONTROL or not k.startswith(CONTROL))}
    ranked = sorted(trained, key=lambda label: trained[label]["test"])
    figure = Figure(figsize=(10, 0.25 * len(ranked) + 2.5), layout="constrained")
    curves, bars = figure.subplots(1, 2)
    for label in ranked:
        loss, epochs = trained[label]["loss"], trained[label]["settings"]["epochs"]
        black = {"color": "black", "linestyle": "--"} if label == CONTROL else {}
        curves.plot([epochs * (i + 1) / len(loss) for i in range(len(loss))], loss, label=label, **black)
    bars.barh(ranked, [trained[label]["test"] for label in ranked], color="0.6")
    if CONTROL in trained:
        bars.axvline(trained[CONTROL]["test"], color="black", linestyle="--")
    curves.set(xlabel="epoch", title="training loss", ylim=(None, 2.6))
    bars.set(xlabel="test accuracy, %", title="ResNet-20 on CIFAR-10")
    figure.savefig(path, dpi=120)


def main(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the data sets' files are.", show_default="$ALTPROP_DATA or data")
    ] = None,
    rules: Annotated[str | None, typer.Option(help="Rules, with commas between.", show_default="all")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 2,
    train_size: Annotated[int | None, typer.Option(min=1, help="Train on so many images.", show_default="all")] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 128,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate, in the place of each rule's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each in a process of its own.")] = 1,
    out: Annotated[Path, typer.Option(help="JSON file for the results.")] = Path("results/cifar10.json"),
) -> None:
    """Train ResNet-20 on CIFAR-10 by every rule, and compare with random features."""
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    make = functools.partial(make_task, data_dir, train_size, device, epochs, batch_size, seed)
    try:
        task = make()
    except (DataError, TrainingError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    labels = [CONTROL, *(split_rules(rules) if rules else altprop.rules.available())]
    runs = run_all(task, labels, out, {} if lr is None else {"lr": lr}, console, jobs, make)
    show(runs, console)
    plot(runs, out.with_suffix(".svg"))
    console.print(f"written to {out} and {out.with_suffix('.svg')}", highlight=False)


def split_rules(text: str) -> list[str]:
    """Split at the commas outside brackets: "dfa(scale=0.5, kind='channel'),bp" is two rules."""
    found = [""]
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]


if __name__ == "__main__":
    typer.run(main)
