"""A step on a GPU beside plain autograd's, eager, recorded and compiled, and its memory at the peak.

A small network on a GPU waits for the host, which has to start a kernel for every operator. `backend="cudagraphs"`
records `net.step` as one CUDA graph, which the GPU replays by itself; "autograd, recorded" is plain autograd so. Ratios
are by the clock. *Peak* is what torch allocated at the worst moment of a step, beyond what it held before it.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

import altprop
from benchmarks.form import Cell, Table
from benchmarks.interleaved import Step
from benchmarks.networks import LARGE, WORKS, Work
from benchmarks.peaks import checkpointed
from benchmarks.timing import quartiles

DEVICE = torch.device("cuda")
RULES = ("bp", "dfa", "reclra")
BACKENDS = ("eager", "cudagraphs", "inductor")
# A network, and how many of its steps are timed together.
ROWS: dict[str, tuple[Work, int]] = {
    "MLP 784-5x256-10, batch 128": (WORKS["MLP 784-5x256-10, batch 128"], 50),
    "ResNet-20, batch 64": (WORKS["ResNet-20, batch 64"], 20),
    "GPT of 4 x 256, 8 x 128 tokens": (WORKS["GPT of 4 x 256, 8 x 128 tokens"], 20),
    **{name: (work, 5) for name, work in LARGE.items()},
}
NAMES = tuple(ROWS)


def autograd(work: Work, model: nn.Module, *, compiled: bool = False) -> Step:
    """One step of plain autograd."""
    inputs, target = tuple(x.to(DEVICE) for x in work.inputs()), work.target().to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        work.loss(forward(*inputs), target).backward()
        optimizer.step()

    return step


def recorded(work: Work, model: nn.Module) -> Step:
    """A whole step of plain autograd as one CUDA graph, as PyTorch's notes on CUDA graphs do it."""
    step = autograd(work, model)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for parameter in model.parameters():
        parameter.grad = None
    with torch.cuda.graph(graph):
        step()

    def replay(held: Step = step) -> None:
        graph.replay()  # on tensors that `held` keeps

    return replay


def ours(work: Work, model: nn.Module, rule: str, backend: str = "eager", memory: str = "usual") -> Step:
    """One `net.step` of a rule."""
    inputs, target = tuple(x.to(DEVICE) for x in work.inputs()), work.target().to(DEVICE)
    text = f"{rule}({work.options})" if work.options and rule != "bp" else rule
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = altprop.compile(model, text, example_inputs=inputs, optimizer=optimizer, backend=backend, memory=memory)
    given = inputs[0] if len(inputs) == 1 else inputs
    return lambda: net.step(given, target)


def candidates_of(work: Work, model: nn.Module, *, compiled: bool) -> dict[str, Callable[[], Step]]:
    """What makes each candidate, on its own copy of the same model."""
    found: dict[str, Callable[[], Step]] = {"autograd, recorded": lambda: recorded(work, copy.deepcopy(model))}
    if compiled:
        found["autograd, torch.compile"] = lambda: autograd(work, copy.deepcopy(model), compiled=True)
    for rule in RULES:
        for backend in BACKENDS if compiled else BACKENDS[:2]:
            title = f"altprop {rule}, {backend}"
            found[title] = lambda rule=rule, backend=backend: ours(work, copy.deepcopy(model), rule, backend)
    return found


def lean_of(work: Work, model: nn.Module) -> dict[str, Callable[[], Step]]:
    """What makes each candidate whose memory is measured."""
    return {
        "plain autograd": lambda: autograd(work, copy.deepcopy(model)),
        "autograd, blocks checkpointed": lambda: autograd(work, checkpointed(copy.deepcopy(model))),
        **{
            f"altprop {rule}, {memory}": lambda rule=rule, memory=memory: ours(
                work, copy.deepcopy(model), rule, memory=memory
            )
            for rule in RULES
            for memory in ("usual", "least")
        },
        "altprop drtp": lambda: ours(work, copy.deepcopy(model), "drtp"),
    }


def milliseconds(step: Step, repeats: int) -> float:
    """The mean time of some steps, and of the wait for the GPU."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / repeats


def times(base: Step, step: Step, rounds: int, repeats: int) -> Cell:
    """The time of a step over the base's, in turns."""
    for one in (base, step):
        milliseconds(one, 3)
    pairs = [(milliseconds(step, repeats), milliseconds(base, repeats)) for _ in range(rounds)]
    beside = {"ms": round(statistics.median(ours for ours, _ in pairs), 3)}
    return Cell(*quartiles(ours / plain for ours, plain in pairs), beside)


def peak(step: Step) -> Cell:
    """MiB of a step at its peak, momenta made before."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return Cell(round((torch.cuda.max_memory_allocated() - before) / 2**20, 1))


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `ROWS`."""
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    steps: dict[str, dict[str, Cell]] = {}
    peaks: dict[str, dict[str, Cell]] = {}
    for name in names:
        work, repeats = ROWS[name]
        torch.manual_seed(0)
        model = work.make().to(DEVICE)
        base = autograd(work, copy.deepcopy(model))
        made = candidates_of(work, model, compiled=compiled)
        steps[name] = {title: times(base, make(), rounds, repeats) for title, make in made.items()}
        torch.cuda.empty_cache()
        peaks[name] = {title: peak(make()) for title, make in lean_of(work, model).items()}
        torch.cuda.empty_cache()
    device = torch.cuda.get_device_name()
    return (
        Table(f"Time of a step over plain autograd's, {device}", _turned(steps)),
        Table(f"MiB at the peak of a step, {device}", _turned(peaks)),
    )


def _turned(rows: dict[str, dict[str, Cell]]) -> dict[str, dict[str, Cell]]:
    """Candidates as rows, of which there are many."""
    titles = dict.fromkeys(title for row in rows.values() for title in row)
    return {title: {name: row[title] for name, row in rows.items() if title in row} for title in titles}
