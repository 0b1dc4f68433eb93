"""The training loop: epochs of `net.step`, each followed by a score, a checkpoint and the logs."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from altprop.data import BatchSampler, DataSet
from altprop.data import load as load_data
from altprop.ir.optimizers import Optimizer
from altprop.runtime.net import LocalNet
from altprop.runtime.whole_files import write_whole, writing
from altprop.training.build import build_model, build_net, check_device, check_outputs
from altprop.training.checkpoint import (
    Checkpoint,
    before,
    load_last,
    load_random_states,
    random_states,
    save_checkpoint,
)
from altprop.training.config import RunConfig
from altprop.training.evaluate import Score, evaluate
from altprop.training.folder import RunFolder
from altprop.training.plots import plot_curves
from altprop.training.records import Row, TensorBoardLog, has_tensorboard, write_csv, write_json
from altprop.training.reductions import ReductionLog
from altprop.training.run_errors import TrainingError


class Reporter:
    """Hears how a run goes. This one is silent; a progress bar overrides what it shows."""

    def started(self, run: "Run") -> None:
        """The net is compiled, and a checkpoint, if there is one, is loaded."""

    def stepped(self, loss: float) -> None:
        """One batch is done."""

    def finished_epoch(self, row: Row) -> None:
        """One epoch is done and saved."""

    def noted(self, sentence: str) -> None:
        """Something that the user should know but that is no error."""


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        test: score on the test split.
        history: one row an epoch.
        seconds: time spent in training steps, all epochs together.
        parameters: count of the model's trainable numbers.
        net: the compiled net, trained.
    """

    test: Score
    history: list[Row]
    seconds: float
    parameters: int
    net: LocalNet = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """Return the numbers that belong into a table."""
        return {
            "test_accuracy": self.test.accuracy,
            "test_error_percent": 100 * (1 - self.test.accuracy),
            "test_loss": self.test.loss,
            "epochs": len(self.history),
            "seconds": self.seconds,
            "parameters": self.parameters,
        }


class Run:
    """One run between its start and its end; `train` drives it."""

    def __init__(self, config: RunConfig, folder: RunFolder, data: DataSet) -> None:
        self.config = config
        self.folder = folder
        self.data = data
        self.device = torch.device(config.device)
        self.history: list[Row] = []
        self.sampler = BatchSampler(data, config.batch_size, seed=config.seed, augment=config.augment)
        model = build_model(config, data.shape, data.classes).to(self.device)
        # Two samples: an example of one would fix the size of the batch.
        example = data.inputs(data.train.images[:2])
        self.net = build_net(config, model, example)
        check_outputs(self.net, example, data.classes)
        self.reductions = ReductionLog(config.reductions, folder)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer inside the program."""
        found = self.net.optimizer
        assert found is not None, "every run has one"
        return found

    def save(self) -> None:
        """Write the checkpoint, then the table; what a resumed run throws away may be written before."""
        self.reductions.save()
        checkpoint = Checkpoint(
            epoch=len(self.history),
            net=self.net.state_dict(),
            sampler=self.sampler.state(),
            random=random_states(self.device),
            history=self.history,
        )
        save_checkpoint(self.folder.checkpoint, checkpoint)
        write_csv(self.folder.metrics, self.history)

    def restore(self) -> str:
        """Take up the last whole checkpoint, if there is one; return a sentence where it is not the last one.

        Raises:
            TrainingError: if there is one that is damaged or does not fit, and none before it.
        """
        if not (self.folder.checkpoint.exists() or before(self.folder.checkpoint).exists()):
            return ""
        checkpoint, note = load_last(self.folder.checkpoint)
        try:
            self.net.load_state_dict(checkpoint.net)
            self.sampler.load_state(checkpoint.sampler)
            load_random_states(checkpoint.random, self.device)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:300]
            raise TrainingError(f"{self.folder.checkpoint} is not of this run's net: {reason}") from error
        self.history = checkpoint.history
        self.reductions.restore(len(self.history))
        write_csv(self.folder.metrics, self.history)
        return note

    def describe(self) -> None:
        """Write what was compiled: the wiring plan and the table of parameters."""
        self.net.plan.save(self.folder.plan)
        with writing(self.folder.path, TrainingError):
            self.net.explain().to_csv(self.folder.explain)

    def run_epoch(self, reporter: Reporter) -> Row:
        """Train for one epoch, score it, save it, and return its row."""
        epoch = len(self.history) + 1
        self._set_rates(epoch)
        start = time.perf_counter()
        loss = self._train(epoch, reporter)
        seconds = time.perf_counter() - start
        score = evaluate(self.net, self.data, self.data.validation)
        self._check(score.loss, f"the validation loss became {score.loss} after epoch {epoch}")
        row = {
            "epoch": epoch,
            "loss": loss,
            "validation_loss": score.loss,
            "validation_accuracy": score.accuracy,
            "lr": self.optimizer.lr,
            "seconds": seconds,
        }
        self.history.append(row)
        self.save()
        return row

    def _set_rates(self, epoch: int) -> None:
        """Set the epoch's learning rates; that of the feedback follows that of the weights, and decays on top."""
        rate = learning_rate(self.config, epoch - 1)
        self.optimizer.lr = rate
        own = self.config.lr if self.config.feedback_lr is None else self.config.feedback_lr
        self.optimizer.feedback_lr = own * rate / self.config.lr * self.config.feedback_lr_decay ** (epoch - 1)

    def _check(self, loss: float, sentence: str) -> None:
        """Stop at a loss that is no number any more, before it gets into a checkpoint."""
        if not math.isfinite(loss):
            raise TrainingError(f"{sentence}; try a smaller learning rate (--lr, now {self.config.lr:g})")

    def _train(self, epoch: int, reporter: Reporter) -> float:
        """Go through the training split once, and return the mean loss a sample."""
        total = 0.0
        done = (epoch - 1) * len(self.sampler)
        for step, (inputs, labels) in enumerate(self.sampler.epoch(), start=1):
            self.reductions.look(self.net, inputs, labels, epoch, done + step - 1)
            loss = self.net.step(inputs, labels).item()
            self._check(loss, f"the loss became {loss} in epoch {epoch}, step {step}")
            total += loss * len(labels)
            reporter.stepped(loss)
        return total / len(self.data.train)


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    data: DataSet | None = None,
) -> Result:
    """Train as the configuration says, and leave everything in the folder.

    Args:
        config: the run's configuration. For a resumed run, the one of `resume_config`.
        folder: for the checkpoint, the tables, the curves; made if it is not there.
        resume: continue the run in the folder, if it holds one.
        overwrite: replace the run in the folder, if it holds one.
        reporter: hears how the run goes.
        data: the data set, if it is loaded already.

    Raises:
        TrainingError, DataError, ModelError, CompileError: each with one sentence for the user.
    """
    reporter = reporter or Reporter()
    files = RunFolder(Path(folder))
    files.check(resume=resume, overwrite=overwrite)
    device = check_device(config.device)
    with files.locked() as lock:
        data = data or load_data(config.data, config.data_dir, validation=config.validation, subset=config.subset)
        with own_torch_state(config, device):
            run = Run(config, files, data.to(device))
            # Only a run that can start touches the folder, and meanwhile another may have come.
            files.make()
            lock()
            files.check(resume=resume, overwrite=overwrite)
            if overwrite:
                files.clear()
            config.model_copy(update={"threads": torch.get_num_threads()}).save(files.config)
            run.describe()
            note = run.restore() if resume else ""
            return _drive(run, reporter, note)


def _drive(run: Run, reporter: Reporter, note: str) -> Result:
    """Run the epochs that are left, then score the test split."""
    reporter.started(run)
    if note:
        reporter.noted(note)
    events = _events(run, reporter)
    with contextlib.closing(events) if events else contextlib.nullcontext():
        while len(run.history) < run.config.epochs:
            row = run.run_epoch(reporter)
            if events:
                events.add(row)
            reporter.finished_epoch(row)
    return _finish(run)


def _finish(run: Run) -> Result:
    test = evaluate(run.net, run.data, run.data.test)
    model = run.net.model
    count = sum(each.numel() for each in model.parameters() if each.requires_grad)
    seconds = sum(row["seconds"] for row in run.history)
    result = Result(test, run.history, seconds, count, run.net)
    title = f"{run.config.model} on {run.config.data} by {run.config.rule_text}"
    with writing(run.folder.path, TrainingError):
        write_whole(run.folder.model, lambda file: torch.save(model.state_dict(), file))
        write_json(run.folder.result, result.summary())
        plot_curves(run.folder.curves, {title: run.history}, title)
        run.reductions.plot(title)
    return result


def _events(run: Run, reporter: Reporter) -> TensorBoardLog | None:
    if not run.config.tensorboard:
        return None
    if not has_tensorboard():
        reporter.noted("TensorBoard is not installed, so no event files are written: pip install tensorboard")
        return None
    return TensorBoardLog(run.folder.events, run.history)


def learning_rate(config: RunConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    `cosine` falls from `lr` towards 0; `step` is a tenth after half of the epochs, a hundredth after three
    quarters (He 2016, section 4.2).
    """
    done = epoch / config.epochs
    if config.lr_schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.lr_schedule == "step":
        return config.lr * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    return config.lr


@contextlib.contextmanager
def own_torch_state(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Seed torch and set its threads for the run; put the caller's back afterwards."""
    threads = torch.get_num_threads()
    own = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=own):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
