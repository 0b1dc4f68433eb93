"""Kills runs at moments drawn by chance, and writes what became of them: `make reliability`.

    python tests/run_kills.py
    python tests/run_kills.py --only schedule --kills 10 --out /tmp/kills.jsonl

A run is killed again and again until it ends; then its weights are held, bit for bit, against those of a run that
nothing disturbed, and another run begins. Moments are counted in calls of functions, so that most fall into training.
Every kill is kept in a file as soon as it is known; run again, the script goes on where it stopped.
"""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
import typer
from killed_ranks import STEPS as RANK_STEPS
from kills import count_calls, die_after, in_child
from made_schedules import BATCH, batches, compiled
from rich.progress import track
from torch import Tensor

from altprop.training import Reporter, make_config, train
from altprop.training.checkpoint import load_checkpoint
from altprop.training.folder import RunFolder, resume_config

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "kills.jsonl"
STEPS = 25
SAME = "the same bits"
STOPPED = ("killed", "interrupted")
Weights = Mapping[str, Tensor]


def compare(expected: Weights, found: Weights) -> str:
    """Says whether two states are the same, or where they differ."""
    if expected.keys() != found.keys():
        return f"other names: {sorted(expected.keys() ^ found.keys())[:3]}"
    differs = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    return f"differs: {differs[:3]}" if differs else SAME


class AtFirstStep(Reporter):
    """Does something once, behind the first step of a run."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def stepped(self, loss: float) -> None:
        if self.action is not None:
            self.action()
            self.action = None


class Counting:
    """Counts the Python functions that are called within it, or since `begin`."""

    def __init__(self) -> None:
        self.made = 0

    def begin(self) -> None:
        """Begins anew."""
        self.made = 0
        sys.setprofile(self._count)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.made += event == "call"

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: Any) -> None:
        sys.setprofile(None)


class Training:
    """`altprop train` on digits, through a fork of this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        train(self._config(), home / "whole")
        self.calls = {True: Counting(), False: Counting()}
        in_steps = AtFirstStep(self.calls[True].begin)
        with self.calls[False]:
            train(self._config(), home / "counted")
        with self.calls[True]:
            train(self._config(), home / "counted again", reporter=in_steps)
        self.run = home / "killed-0"

    def _config(self) -> Any:
        small = {"subset": 250, "epochs": 4, "threads": 1, "tensorboard": False, "hidden": [16, 16], "rule": "reclra"}
        return make_config(flags=small)

    def go_on(self, reporter: Reporter | None = None) -> None:
        """Trains to the end, from the last checkpoint if there is one."""
        found = resume_config(RunFolder(self.run), None, {}) if self.run.exists() else None
        train(found or self._config(), self.run, resume=found is not None, reporter=reporter or Reporter())

    def kill(self, draw: random.Random, stop: Callable[[int], None] = die_after) -> str:
        """One kill, three of four behind the first step; returns what became of the run."""
        in_steps = draw.random() < 0.75
        moment = draw.randrange(int(self.calls[in_steps].made * 0.6))

        def work() -> None:
            if in_steps:
                self.go_on(AtFirstStep(lambda: stop(moment)))
            else:
                stop(moment)
                self.go_on()

        status = in_child(work)
        if status == -signal.SIGKILL:
            return "killed"
        if status == 1 and stop is not die_after:
            return "interrupted"
        if status:
            return f"ended with {status}"
        outcome = compare(self._weights(self.home / "whole"), self._weights(self.run))
        self.run = self.home / f"killed-{draw.randrange(10**9)}"
        return outcome

    def _weights(self, folder: Path) -> Weights:
        state = load_checkpoint(folder / "checkpoint.pt").net
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def interrupt_after(calls: int) -> None:
    """From now on so many functions are called; then the process gets the SIGINT of Ctrl-C."""
    left = calls

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= event == "call"
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.setprofile(count)


class Interrupted(Training):
    """The same, stopped by Ctrl-C."""

    def kill(self, draw: random.Random, stop: Callable[[int], None] = interrupt_after) -> str:
        return super().kill(draw, stop)


class JumpingClock(Training):
    """The same, undisturbed but for a clock that jumps by up to a year at every look."""

    def kill(self, draw: random.Random, stop: Callable[[int], None] = die_after) -> str:
        real = time.time

        def work() -> None:
            with mock.patch("time.time", side_effect=lambda: real() + draw.uniform(-3e7, 3e7)):
                self.go_on()

        status = in_child(work)
        outcome = compare(self._weights(self.home / "whole"), self._weights(self.run)) if not status else str(status)
        self.run = self.home / f"jumped-{draw.randrange(10**9)}"
        return outcome


class Scheduled:
    """A schedule on one to three devices, with a checkpoint behind every step."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.whole, undisturbed = self._prepare(1)
        self.calls = count_calls(lambda: self._train(undisturbed, home / "whole"))
        self.ready = [self._prepare(devices)[1] for devices in (1, 2, 3)]
        self.run = home / "killed-0"

    def _prepare(self, devices: int) -> tuple[Any, Any]:
        net = copy.deepcopy(compiled("nine", "reclra"))
        return net, net.schedule(devices=devices, batch=BATCH).runtime("serial")

    def _train(self, running: Any, folder: Path) -> None:
        for batch in batches("nine", STEPS)[running.resume(folder) :]:
            running.step(*batch)
            running.save(folder)

    def kill(self, draw: random.Random) -> str:
        """One kill, on a number of devices drawn by chance."""
        running, moment = draw.choice(self.ready), draw.randrange(int(self.calls * 0.4))

        def work() -> None:
            die_after(moment)
            self._train(running, self.run)

        status = in_child(work)
        if status == -signal.SIGKILL:
            return "killed"
        if status:
            return f"ended with {status}"
        net, last = self._prepare(2)
        last.resume(self.run)
        self.run = self.home / f"killed-{draw.randrange(10**9)}"
        return compare(self.whole.state_dict(), net.state_dict())


class Ranks:
    """Two ranks under torchrun, of which one is killed; the other has to end by itself."""

    CALLS = 60_000  # of one rank's whole run, about

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "whole"
        assert not self._launch(-1, 0), self.said
        self.whole = self._ends()
        self.run = home / "killed-0"

    def _launch(self, rank: int, calls: int) -> int:
        self.run.mkdir(exist_ok=True)
        script = Path(__file__).with_name("killed_ranks.py")
        words = ["--nproc-per-node", "2", "--master-port", str(random.randrange(20000, 60000)), str(script)]
        command = [sys.executable, "-m", "torch.distributed.run", *words, str(self.run), str(rank), str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        self.said = done.stderr[-2000:]
        return done.returncode

    def _ends(self) -> list[Weights]:
        return [torch.load(self.run / f"end{rank}.pt", weights_only=True) for rank in range(2)]

    def kill(self, draw: random.Random) -> str:
        """One kill of one rank."""
        if self._launch(draw.randrange(2), draw.randrange(self.CALLS * 8 // RANK_STEPS)):
            return "killed"
        outcomes = {compare(one, other) for one, other in zip(self.whole, self._ends(), strict=True)}
        self.run = self.home / f"killed-{draw.randrange(10**9)}"
        return SAME if outcomes == {SAME} else str(sorted(outcomes))


class Threads:
    """Many steps of the runtime with a thread a device, beside as many of the serial one."""

    COUNT = 20_000

    def __init__(self, home: Path) -> None:
        self.nets = [copy.deepcopy(compiled("nine", "reclra")) for _ in range(2)]

    def kill(self, draw: random.Random) -> str:
        """Nothing is killed here."""
        kinds = ("serial", "threads")
        made = [net.schedule(devices=3, batch=BATCH).runtime(kind) for net, kind in zip(self.nets, kinds, strict=True)]
        given = batches("nine", 50)
        for step in range(self.COUNT):
            for runtime in made:
                runtime.step(*given[step % 50])
        made[1].close()
        return compare(self.nets[0].state_dict(), self.nets[1].state_dict())


KINDS: dict[str, tuple[Callable[[Path], Any], int]] = {
    "training": (Training, 40),
    "schedule": (Scheduled, 27),
    "torchrun": (Ranks, 33),
    "interrupt": (Interrupted, 10),
    "clock": (JumpingClock, 3),
    "threads": (Threads, 1),
}
"""What is disturbed, and how many times."""


def run(kind: str, count: int, out: Path) -> list[dict[str, Any]]:
    """Disturbs runs of one kind until `count` disturbances are kept, and then lets the last one end.

    Returns:
        All rows that are kept of this kind.
    """
    rows = [row for row in load(out) if row["kind"] == kind]
    quiet = kind in ("clock", "threads")
    left = count - (len(rows) if quiet else sum(row["outcome"] in STOPPED for row in rows))
    if left <= 0:
        return rows
    draw = random.Random(f"{kind} {len(rows)}")
    with tempfile.TemporaryDirectory() as folder, out.open("a", encoding="utf-8") as file:
        under = KINDS[kind][0](Path(folder))

        def disturb() -> bool:
            rows.append({"kind": kind, "outcome": under.kill(draw)})
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            return rows[-1]["outcome"] in STOPPED

        for _ in track(range(left), description=kind):
            while not disturb() and not quiet:
                pass  # this run came to its end: the kill is still to be made
        while not quiet and disturb():
            pass  # the last run ends, too
    return rows


def load(out: Path) -> list[dict[str, Any]]:
    """What was kept so far."""
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []


def main(
    only: Annotated[str, typer.Option(help="One kind alone.")] = "",
    kills: Annotated[int | None, typer.Option(help="How many, in the place of the usual number.")] = None,
    out: Annotated[Path, typer.Option(help="Where the outcomes are kept.")] = RESULTS,
) -> None:
    """Kill runs, and say whose weights are other than those of an undisturbed run."""
    bad = []
    for kind, (_, count) in KINDS.items():
        if kind == only or not only:
            rows = run(kind, kills or count, out)
            bad += [row for row in rows if row["outcome"] not in (*STOPPED, SAME)]
    for row in bad:
        print(row)  # noqa: T201
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
