"""Two processes of one thread each over gloo: our programs beside torch's 1F1B pipeline with backpropagation.

Both have the same micro-batches and the same optimizer (SGD with momentum), and each its own cut. They run in the same
processes, whose C library keeps freed memory, and are timed in turns, round after round, by the clock. An update of
ours serves all micro-batches, where that pays. Our cut is the scheduler's, by times that the first process took for the
tasks.

In the same rounds each task of ours is timed by itself, in both processes at once, since two busy cores share memory
and clock; and the link is timed. "As predicted" is what the simulator makes of these times; it stands beside "one step
alone", from one barrier to the next, and beside that how long either process works in it. 1F1B and ours are of three
steps in a row, where the next begins before the last has ended on the other side.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn import functional

import altprop
from altprop import models
from benchmarks import timing
from benchmarks.form import Cell, Table

ROOT = Path(__file__).parent.parent
RULES = ("dfa", "reclra")
MICROBATCHES = (2, 4)
OVER, TIMES = "Throughput over that of 1F1B", "Milliseconds of a step"
Step = Callable[[], Any]


class Stem(nn.Module):
    """The first layer of a residual net."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv, self.norm = model.conv, model.norm

    def forward(self, x: Tensor) -> Tensor:
        """As in the model."""
        return torch.relu(self.norm(self.conv(x)))


class Head(nn.Module):
    """The last layer of a residual net."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.fc = model.fc

    def forward(self, x: Tensor) -> Tensor:
        """As in the model."""
        return self.fc(x.mean((2, 3)))


def resnet20() -> tuple[nn.Module, list[tuple[str, nn.Module]]]:
    """ResNet-20, and its parts in a row: name of the module, module."""
    model: Any = models.build("resnet20", (3, 32, 32))
    blocks = [(f"stage{s}.{i}", getattr(model, f"stage{s}")[i]) for s in (1, 2, 3) for i in range(3)]
    return model, [("conv", Stem(model)), *blocks, ("fc", Head(model))]


def mlp12() -> tuple[nn.Module, list[tuple[str, nn.Module]]]:
    """A perceptron of twelve layers, 784 - 11 x 512 tanh - 10, and its parts in a row."""
    model = models.build("mlp", (1, 28, 28), hidden=[512] * 11)
    rows: dict[str, list[nn.Module]] = {}
    for name, module in model.named_children():
        if name.startswith("fc"):
            # The first layer takes images.
            rows[name] = [module] if rows else [nn.Flatten(), module]
        elif name.startswith("act"):
            list(rows.values())[-1].append(module)
    parts: list[tuple[str, nn.Module]] = [(name, nn.Sequential(*row)) for name, row in rows.items()]
    return model, parts


@dataclasses.dataclass(frozen=True)
class Work:
    """One model to train, on both sides alike.

    Attributes:
        make: makes the model, and its parts in a row.
        shape: of a batch.
        cut: how many parts the first rank of 1F1B has: what was fastest for it.
        layout: of images and filters.
    """

    make: Callable[[], tuple[nn.Module, list[tuple[str, nn.Module]]]]
    shape: tuple[int, ...]
    cut: int
    layout: torch.memory_format = torch.contiguous_format

    def build(self) -> tuple[nn.Module, list[tuple[str, nn.Module]]]:
        """The model and its parts, from the same seed every time."""
        torch.manual_seed(0)
        model, parts = self.make()
        model.to(memory_format=self.layout)
        return model, parts

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and classes."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.shape, generator=generator).contiguous(memory_format=self.layout)
        return x, torch.randint(0, 10, (self.shape[0],), generator=generator)


WORK = {
    "ResNet-20": Work(resnet20, (64, 3, 32, 32), 4),
    "ResNet-20, channels last": Work(resnet20, (64, 3, 32, 32), 5, torch.channels_last),
    "MLP, 12 layers": Work(mlp12, (128, 1, 28, 28), 6),
}


class Turn(nn.Module):
    """Turns the dimensions, so that images that lie channels last can be sent: gloo takes contiguous tensors alone."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """Without a copy, and its gradient too."""
        return x.permute(self.order)


def torch_step(work: Work, x: Tensor, y: Tensor, microbatches: int) -> Step:
    """One step of torch's 1F1B pipeline with backpropagation."""
    rank = dist.get_rank()
    parts = [part for _, part in work.build()[1]]
    first, second = parts[: work.cut], parts[work.cut :]
    if work.layout is torch.channels_last:
        first, second = [*first, Turn(0, 2, 3, 1)], [Turn(0, 3, 1, 2), *second]
    mine = nn.Sequential(*(first if rank == 0 else second))
    stage = PipelineStage(mine, rank, 2, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=microbatches, loss_fn=functional.cross_entropy)
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(x)
        else:
            schedule.step(target=y, losses=[])
        optimizer.step()

    return step


class Ours:
    """Our programs, with an update for all micro-batches where that pays, cut by the times that tasks take here.

    Attributes:
        step: one training step.
        schedule: the programs.
    """

    def __init__(self, work: Work, rule: str, x: Tensor, y: Tensor, microbatches: int) -> None:
        model, _ = work.build()
        optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
        net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer)
        options = {"devices": 2, "microbatches": microbatches, "join": microbatches, "batch": x.shape[0]}
        dist.barrier()
        costs = [net.schedule(**options).measure(x, y)]
        dist.broadcast_object_list(costs)  # both processes need the same programs
        self.schedule = net.schedule(**options, machine=costs[0])
        self._timer = self.schedule.timer()
        self._batch = x, y
        self._timer.warm_up(x, y)
        runtime = self.schedule.runtime("distributed", release_others=False)
        self.step: Step = lambda: runtime.step(x, y)

    def time_tasks(self) -> None:
        """Times every task once in this process, while the other process does the same."""
        dist.barrier()
        self._timer.step(*self._batch)

    def predict(self, machine: altprop.Machine) -> Any:
        """A step, simulated from the times of single tasks, each in the process that runs it."""
        gathered: list[Any] = [None, None]
        dist.all_gather_object(gathered, self._timer.medians())
        home = {(t.kind, t.region): device for device, t in self.schedule.programs.tasks() if t.computes}
        measured = {key: gathered[home[key[:2]]][key] for key in gathered[0]}
        return self.schedule.simulate(altprop.CostModel(machine, measured))


def timed(step: Step, repeats: int) -> float:
    """Seconds of a step, from one barrier to the next."""
    dist.barrier()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    dist.barrier()
    return (time.perf_counter() - start) / repeats


class Link:
    """Times messages that go there and back between the two ranks, a few in each round."""

    def __init__(self) -> None:
        self._times: dict[int, list[float]] = {16: [], 1 << 20: []}

    def time(self, repeats: int = 12) -> None:
        """Sends messages of each size; both ranks call it."""
        for count, times in self._times.items():
            data = torch.zeros(count)
            for turn in range(repeats):
                start = time.perf_counter()
                for source in (0, 1):
                    operation = dist.isend if dist.get_rank() == source else dist.irecv
                    for work in dist.batch_isend_irecv([dist.P2POp(operation, data, 1 - dist.get_rank())]):
                        work.wait()
                if turn > 1:
                    times.append((time.perf_counter() - start) / 2)

    def machine(self) -> altprop.Machine:
        """Latency and bandwidth of the link, and what an end spends on a message."""
        small, large = (statistics.median(times) for times in self._times.values())
        return altprop.Machine(
            link_bandwidth=4 * (1 << 20) / max(large - small, 1e-6),
            link_latency=small * 0.75,
            transfer_overhead=small / 4,
        )


ROWS: dict[str, tuple[str, int]] = {
    f"{name}, {count} micro-batches": (name, count) for name in WORK for count in MICROBATCHES
}
NAMES = tuple(ROWS)


def run(name: str, microbatches: int, rounds: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Times all candidates of one model in turns, and in the same turns the tasks and the link.

    Returns:
        By rule: seconds of 1F1B, of ours, and of one step of ours alone, round by round; what was predicted; and how
        long each process works in that.
    """
    work = WORK[name]
    x, y = work.batch()
    plain = torch_step(work, x, y, microbatches)
    ours = {rule: Ours(work, rule, x, y, microbatches) for rule in RULES}
    for step in (plain, *(one.step for one in ours.values())):
        timed(step, 3)
    link = Link()
    times: dict[str, list[tuple[float, float, float]]] = {rule: [] for rule in RULES}
    for _ in range(rounds):
        for rule, one in ours.items():
            one.time_tasks()
            times[rule].append((timed(plain, repeats), timed(one.step, repeats), timed(one.step, 1)))
            link.time()
    timelines = {rule: one.predict(link.machine()) for rule, one in ours.items()}
    return {
        rule: {"times": times[rule], "predicted": one.makespan, "work": [one.makespan - idle for idle in one.idle]}
        for rule, one in timelines.items()
    }


def cells(found: dict[str, Any]) -> tuple[Cell, dict[str, Cell]]:
    """The throughput of a rule over that of 1F1B, and the milliseconds."""
    times = found["times"]
    # Other work on the machine only ever adds time: the fastest rounds are nearest to the machine alone.
    fastest = min(row[0] for row in times) / min(row[1] for row in times)
    gain = timing.quartiles(plain / own for plain, own, _ in times)
    names = ("1F1B", "ours", "one step alone")
    taken = {title: statistics.median(column) for title, column in zip(names, zip(*times, strict=True), strict=True)}
    taken["as predicted"] = found["predicted"]
    taken |= dict(zip(("work of the first process", "work of the second"), found["work"], strict=True))
    return Cell(*gain, {"fastest": round(fastest, 3)}), {key: Cell(round(one * 1e3, 2)) for key, one in taken.items()}


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Starts two processes that measure some of `ROWS`; `compiled` changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*start, "-m", "benchmarks.parallel", str(path), *names, "--rounds", str(rounds)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    over: dict[str, dict[str, Cell]] = {}
    taken: dict[str, dict[str, Cell]] = {}
    for name, rules in found.items():
        for rule, times in rules.items():
            gain, milliseconds = cells(times)
            over.setdefault(name, {})[rule] = gain
            taken[f"{name}, {rule}"] = milliseconds
    return Table(OVER, over, better="more"), Table(TIMES, taken, better="")


def main() -> None:
    """One of the two processes: measures rows, and writes what it found where it is the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="file for the times")
    parser.add_argument("rows", nargs="+", choices=NAMES, metavar="ROW")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    timing.keep_memory()
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    found = {name: run(*ROWS[name], args.rounds, 3) for name in args.rows}
    if dist.get_rank() == 0:
        args.path.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
