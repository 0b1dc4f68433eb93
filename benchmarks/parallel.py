"""Two processes of one thread each over gloo: our programs beside torch's 1F1B pipeline with backpropagation.

    torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py            # prints; writes results and docs
    torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py --quick    # few rounds, writes nothing

Both have the same cut, the same micro-batches and the same optimizer (SGD with momentum), run in the same processes,
whose C library keeps freed memory, and are timed in turns, round after round. Then each task of ours is timed alone,
the link is timed, and the simulator's prediction from these times stands beside what was measured.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
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
        cut: how many parts the first rank has.
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


def torch_step(parts: Sequence[nn.Module], cut: int, x: Tensor, y: Tensor, microbatches: int) -> Step:
    """One step of torch's 1F1B pipeline with backpropagation."""
    rank = dist.get_rank()
    mine = nn.Sequential(*(parts[:cut] if rank == 0 else parts[cut:]))
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


def our_step(work: Work, rule: str, x: Tensor, y: Tensor, microbatches: int) -> tuple[Step, altprop.Schedule]:
    """One step of our programs on the same cut, and their schedule before parameters were given up."""
    model, parts = work.build()
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, rule=rule, example_inputs=(x,), optimizer=optimizer)
    first = tuple(part for part, _ in parts[: work.cut])
    placement = {
        region.name: 0 if region.name in first or region.name.startswith(tuple(f"{p}." for p in first)) else 1
        for region in net.graph.regions
    }
    schedule = net.schedule(devices=2, microbatches=microbatches, batch=x.shape[0], placement=placement)
    runtime = schedule.runtime("distributed", release_others=False)
    return lambda: runtime.step(x, y), schedule


def timed(step: Step, repeats: int) -> float:
    """Seconds of a step, from one barrier to the next."""
    dist.barrier()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    dist.barrier()
    return (time.perf_counter() - start) / repeats


def link() -> altprop.Machine:
    """Measures latency and bandwidth between the two ranks by messages that go there and back."""

    def there_and_back(count: int, repeats: int = 60) -> float:
        data, times = torch.zeros(count), []
        for _ in range(repeats):
            start = time.perf_counter()
            for source in (0, 1):
                operation = dist.isend if dist.get_rank() == source else dist.irecv
                for work in dist.batch_isend_irecv([dist.P2POp(operation, data, 1 - dist.get_rank())]):
                    work.wait()
            times.append((time.perf_counter() - start) / 2)
        return statistics.median(times[10:])

    small, large = there_and_back(16), there_and_back(1 << 20)
    return altprop.Machine(
        link_bandwidth=4 * (1 << 20) / max(large - small, 1e-6), link_latency=small * 0.75, transfer_overhead=small / 4
    )


def predict(schedule: altprop.Schedule, x: Tensor, y: Tensor) -> float:
    """Seconds of a step as simulated from the times of single tasks; rank 0 measures its tasks and rank 1 its own."""
    machine = link()
    found = []
    for turn in range(2):
        # One rank at a time has the machine's attention; the other waits.
        dist.barrier()
        found.append(schedule.measure(x, y, repeats=7).measured if dist.get_rank() == turn else None)
    dist.barrier()
    gathered: list[Any] = [None, None]
    dist.all_gather_object(gathered, found[dist.get_rank()])
    measured = {key: (gathered[0][key] + gathered[1][key]) / 2 for key in gathered[0]}
    costs = altprop.CostModel(machine, measured)
    return schedule.simulate(costs).makespan


def run(name: str, microbatches: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Times all candidates of one model in turns."""
    work = WORK[name]
    x, y = work.batch()
    plain = torch_step([part for _, part in work.build()[1]], work.cut, x, y, microbatches)
    ours = {rule: our_step(work, rule, x, y, microbatches) for rule in RULES}
    for step in (plain, *(step for step, _ in ours.values())):
        timed(step, 3)
    pairs: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    for _ in range(rounds):
        for rule, (step, _) in ours.items():
            pairs[rule].append((timed(plain, repeats), timed(step, repeats)))
    return {rule: _summary(pairs[rule], predict(ours[rule][1], x, y)) for rule in RULES}


def _summary(pairs: list[tuple[float, float]], predicted: float) -> dict[str, float]:
    gains = sorted(plain / own for plain, own in pairs)
    quarter = len(gains) // 4
    measured = statistics.median(own for _, own in pairs)
    # Other work on the machine only ever adds time: the fastest rounds are nearest to the machine alone.
    fastest = min(plain for plain, _ in pairs) / min(own for _, own in pairs)
    return {
        "fastest": round(fastest, 3),
        "throughput": round(statistics.median(gains), 3),
        "low": round(gains[quarter], 3),
        "high": round(gains[-1 - quarter], 3),
        "ms": round(measured * 1e3, 2),
        "plain_ms": round(statistics.median(plain for plain, _ in pairs) * 1e3, 2),
        "predicted_ms": round(predicted * 1e3, 2),
    }


def table(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = [
        f"Processor: {results['machine']['processor']}, torch {results['machine']['torch']}, two processes of one "
        "thread each, gloo over the loopback device. Throughput is that of ours over that of 1F1B: the median over "
        f"{results['rounds']} rounds with its quartiles, and that of the fastest rounds.",
        "",
        "| model, micro-batches | rule | throughput | fastest | 1F1B, ms | ours, ms | ours as predicted, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    if results["load"] > 2.5:
        lines.insert(1, f"\n**The machine was not quiet**: its load was {results['load']:.1f} on two cores.")
    for name, rows in results["work"].items():
        for rule, row in rows.items():
            share = f"{row['throughput']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
            numbers = f"{row['plain_ms']:.1f} | {row['ms']:.1f} | {row['predicted_ms']:.1f}"
            lines.append(f"| {name} | {rule} | {share} | {row['fastest']:.2f} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures on both ranks, prints and writes on the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--microbatches", type=int, nargs="+", default=[2, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    timing.keep_memory()
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    if dist.get_world_size() != 2:
        raise SystemExit("start two processes: torchrun --standalone --nproc-per-node 2 benchmarks/parallel.py")
    rounds = 4 if args.quick else args.rounds
    work = {f"{name}, {count}": run(name, count, rounds, 3) for name in WORK for count in args.microbatches}
    results = {"machine": timing.machine(), "load": os.getloadavg()[0], "rounds": rounds, "work": work}
    if dist.get_rank() == 0:
        print(table(results))
        if not args.quick:
            timing.save(ROOT / "benchmarks" / "results" / "parallel.json", results)
            timing.replace_section(ROOT / "docs" / "parallel.md", "parallel", table(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
