"""Two processes of one thread each over gloo: our programs beside torch's 1F1B pipeline with backpropagation.

    torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py            # prints; writes results and docs
    torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py --quick    # few rounds, writes nothing

Both have the same micro-batches and the same optimizer (SGD with momentum), and each its own cut. They run in the same
processes, whose C library keeps freed memory, and are timed in turns, round after round. In the same rounds each task
of ours is timed by itself, in both processes at once, since two busy cores share memory and clock; and the link is
timed. What the simulator predicts from these times stands beside what a single step took, from one barrier to the next.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import timing
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn import functional

import altprop
from altprop import models

ROOT = Path(__file__).parent.parent
RULES = ("dfa", "reclra")
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
    """Our programs, on the cut that the scheduler finds, with an update for all micro-batches where that pays.

    Attributes:
        step: one training step.
        schedule: the programs.
    """

    def __init__(self, work: Work, rule: str, x: Tensor, y: Tensor, microbatches: int) -> None:
        model, _ = work.build()
        optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
        net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer)
        self.schedule = net.schedule(devices=2, microbatches=microbatches, join=microbatches, batch=x.shape[0])
        self._timer = self.schedule.timer()
        self._batch = x, y
        self._timer.warm_up(x, y)
        runtime = self.schedule.runtime("distributed", release_others=False)
        self.step: Step = lambda: runtime.step(x, y)

    def time_tasks(self) -> None:
        """Times every task once in this process, while the other process does the same."""
        dist.barrier()
        self._timer.step(*self._batch)

    def predict(self, machine: altprop.Machine) -> float:
        """Seconds of a step, simulated from the times of single tasks, each in the process that runs it."""
        gathered: list[Any] = [None, None]
        dist.all_gather_object(gathered, self._timer.medians())
        home = {(t.kind, t.region): device for device, t in self.schedule.programs.tasks() if t.computes}
        measured = {key: gathered[home[key[:2]]][key] for key in gathered[0]}
        return self.schedule.simulate(altprop.CostModel(machine, measured)).makespan


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


def run(name: str, microbatches: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Times all candidates of one model in turns, and in the same turns the tasks and the link."""
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
    return {rule: _summary(times[rule], one.predict(link.machine())) for rule, one in ours.items()}


def _summary(times: list[tuple[float, float, float]], predicted: float) -> dict[str, float]:
    gains = sorted(plain / own for plain, own, _ in times)
    quarter = len(gains) // 4
    plain, own, alone = (statistics.median(column) for column in zip(*times, strict=True))
    # Other work on the machine only ever adds time: the fastest rounds are nearest to the machine alone.
    fastest = min(row[0] for row in times) / min(row[1] for row in times)
    return {
        "fastest": round(fastest, 3),
        "throughput": round(statistics.median(gains), 3),
        "low": round(gains[quarter], 3),
        "high": round(gains[-1 - quarter], 3),
        "ms": round(own * 1e3, 2),
        "plain_ms": round(plain * 1e3, 2),
        "alone_ms": round(alone * 1e3, 2),
        "predicted_ms": round(predicted * 1e3, 2),
        "predicted_over_measured": round(predicted / alone, 3),
    }


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [
        f"Processor: {results['machine']['processor']}, torch {results['machine']['torch']}, two processes of one "
        "thread each, gloo over the loopback device. Throughput is that of ours over that of 1F1B: the median over "
        f"{results['rounds']} rounds with its quartiles, and that of the fastest rounds.",
        "",
        "| model, micro-batches | rule | throughput | fastest | 1F1B, ms | ours, ms | one step alone, ms | "
        "as predicted, ms | predicted over measured |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    if results["load"] > 2.5:
        lines.insert(1, f"\n**The machine was not quiet**: its load was {results['load']:.1f} on two cores.")
    for name, rows in results["work"].items():
        for rule, row in rows.items():
            share = f"{row['throughput']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            keys = ("plain_ms", "ms", "alone_ms", "predicted_ms")
            numbers = f"{' | '.join(f'{row[key]:.1f}' for key in keys)} | {row['predicted_over_measured']:.2f}"
            lines.append(f"| {name} | {rule} | {share} | {row['fastest']:.2f} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures on both ranks, prints and writes on the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--microbatches", type=int, nargs="+", default=[2, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    timing.keep_memory()
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    if dist.get_world_size() != 2:
        raise SystemExit("start two processes: torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py")
    rounds = 4 if args.quick else args.rounds
    work = {f"{name}, {count}": run(name, count, rounds, 3) for name in args.work for count in args.microbatches}
    results = {"machine": timing.machine(), "load": os.getloadavg()[0], "rounds": rounds, "work": work}
    if dist.get_rank() == 0:
        print(table(results))
        if not args.quick:
            timing.save(ROOT / "benchmarks" / "results" / "parallel.json", results)
            timing.replace_section(ROOT / "docs" / "parallel.md", "parallel", table(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
