"""Streams without a GPU: lanes on make-believe GPUs, and a check that every task stands behind what it reads.

Each stream has a vector clock, as has each thread of the host. Events carry clocks from stream to stream. A task that
reads a value whose maker is not in its stream's clock would race on a real GPU.
"""

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import kept
import pytest
import tiny
import torch
from made_schedules import BATCH, batches, compiled
from torch import nn
from torch.utils import _pytree as pytree

import altprop
from altprop import ScheduleError
from altprop.ir.schedule import is_resident
from altprop.runtime.parallel import foreign, lanes
from altprop.runtime.parallel.residents import Residence

pytestmark = pytest.mark.third

ONE, OTHER = "cpu:0", "cpu"  # the make-believe GPUs; torch tells these names apart


class Stream:
    """Counts what it was given, and knows what of other streams that stands behind."""

    def __init__(self, device: Any = None) -> None:
        self.clock: dict[Any, int] = {self: 0}
        self.records: list[int] = []

    def merge(self, clock: dict[Any, int]) -> None:
        for stream, tick in list(clock.items()):
            self.clock[stream] = max(self.clock.get(stream, 0), tick)

    def tick(self) -> tuple["Stream", int]:
        self.clock[self] += 1
        return self, self.clock[self]

    def wait_stream(self, other: "Stream") -> None:
        self.merge(other.clock)

    def wait_event(self, event: "Event") -> None:
        self.merge(event.clock)

    def record_event(self) -> "Event":
        return Event(dict(self.clock))


class Event:
    def __init__(self, clock: dict[Any, int]) -> None:
        self.clock = clock

    def synchronize(self) -> None:
        Streams.host().merge(self.clock)


class Streams:
    """Stands for `torch.cuda`."""

    Stream = Stream
    local = threading.local()
    default = Stream()

    @classmethod
    def host(cls) -> Stream:
        """The clock of this thread of the host."""
        if not hasattr(cls.local, "host"):
            cls.local.host = Stream()
        return cls.local.host

    @classmethod
    def current_stream(cls, device: Any) -> Stream:
        return cls.default

    @classmethod
    @contextlib.contextmanager
    def stream(cls, stream: Stream) -> Iterator[None]:
        """What is given to a stream comes behind what the host has done."""
        stream.merge(cls.host().clock)
        yield


class Checker:
    """Checks each task of a runtime, and remembers what goes wrong."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.made: dict[str, tuple[Stream, int]] = {}
        self.races: list[str] = []
        self.crossed = 0
        for worker in runtime.workers:
            worker.actions = [(task, self._checked(worker, task, action)) for task, action in worker.actions]
        if hasattr(runtime, "_turns"):
            runtime._turns = runtime._find_turns()

    def _checked(self, worker: Any, task: Any, action: Any) -> Any:
        if not task.computes:
            return action
        lane = self.runtime.lanes[worker.device]

        def run() -> None:
            action()  # it awaits what it reads
            stream = lane.stream or Streams.host()
            stream.merge(Streams.host().clock)
            for name in [n for n in task.reads if n in self.made and not is_resident(n)]:
                maker, tick = self.made[name]
                self.crossed += maker is not stream
                if stream.clock.get(maker, 0) < tick:
                    self.races.append(f"{task.label} on {worker.device} reads {name} too early")
            at = stream.tick()
            self.made |= dict.fromkeys([*task.writes, *task.changes], at)

        return run


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Stream]]:
    """Make-believe GPUs; returns what the allocator is told."""
    found: list[tuple[int, Stream]] = []
    monkeypatch.setattr(lanes, "record", lambda value, stream: found.append((value.data_ptr(), stream)))
    monkeypatch.setattr(lanes, "keep", lambda value, lane: lane.stream and lanes.record(value, lane.stream))
    monkeypatch.setattr(lanes, "landing", lambda value, target: torch.empty_like(value))
    monkeypatch.setattr(lanes, "present_device", torch.device)
    monkeypatch.setattr(lanes.Parcel, "__init__", _closing(lanes.Parcel.__init__))
    monkeypatch.setattr(lanes.Parcel, "open", _opening(lanes.Parcel.open))
    return found


def _closing(close: Any) -> Any:
    """A thread that is handed a parcel stands behind what the other has done."""

    def run(self: Any, *args: Any) -> None:
        close(self, *args)
        self.host = dict(Streams.host().clock)

    return run


def _opening(open_it: Any) -> Any:
    def run(self: Any) -> Any:
        Streams.host().merge(self.host)
        return open_it(self)

    return run


def pretend(monkeypatch: pytest.MonkeyPatch, *gpus: str) -> None:
    devices = [torch.device(name) for name in gpus]
    monkeypatch.setattr(lanes, "streams_of", lambda device: Streams if device in devices else None)


PLACES = {"two streams": ([ONE, ONE, ONE], (ONE,)), "CPU and GPU": ([OTHER, ONE, OTHER], (ONE,))}
PLACES |= {"two GPUs": ([ONE, OTHER, ONE], (ONE, OTHER)), "CPUs": ([OTHER, OTHER, OTHER], ())}


@pytest.mark.parametrize("runtime", ["streams", "threads"])
@pytest.mark.parametrize("where", list(PLACES))
@pytest.mark.parametrize(("name", "rule"), [("nine", "dfa"), ("residual", "bp")])
def test_tasks_stand_behind_what_they_read(
    name: str, rule: str, where: str, runtime: str, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, gpus = PLACES[where]
    pretend(monkeypatch, *gpus)
    nets = [copy.deepcopy(compiled(name, rule)) for _ in range(2)]
    made = [net.schedule(devices=names, microbatches=2, batch=BATCH) for net in nets]
    running, serial = made[0].runtime(runtime), made[1].runtime("serial")
    checker = Checker(running)
    for batch in batches(name, 2):
        assert torch.equal(running.step(*batch), serial.step(*batch))
    assert not checker.races
    assert checker.crossed or not gpus
    assert not [key for key, value in nets[0].state_dict().items() if not torch.equal(value, nets[1].state_dict()[key])]
    ends = [lane.stream for lane in running.lanes if lane.stream is not None]
    assert all(Streams.default.clock[stream] == stream.clock[stream] for stream in ends)
    assert bool(recorded) == bool(gpus)
    if runtime == "threads":
        running.close()


@pytest.mark.parametrize("missing", ["wait_event", "record_event"])
def test_a_missing_event_is_seen(missing: str, recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail."""
    pretend(monkeypatch, ONE)
    broken = {"wait_event": lambda self, event: None, "record_event": lambda self: Event({})}
    monkeypatch.setattr(Stream, missing, broken[missing])
    net = copy.deepcopy(compiled("nine", "dfa"))
    running = net.schedule(devices=[ONE, ONE], batch=BATCH).runtime("streams")
    checker = Checker(running)
    running.step(*batches("nine")[0])
    assert "reads" in checker.races[0]


def test_readers_on_other_streams_are_recorded(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over without a copy is not freed for anew use before the reader's stream has read it."""
    pretend(monkeypatch, ONE)
    first, second = (lanes.Lane(torch.device(ONE)) for _ in range(2))
    value = torch.zeros(3)
    assert lanes.Parcel(value, first, second).open() is value
    assert recorded == [(value.data_ptr(), second.stream)]


# Where things live


def test_everything_lives_with_its_region() -> None:
    net = copy.deepcopy(compiled("nine", "dfa"))
    schedule = net.schedule(devices=["cpu", "meta"], batch=BATCH).programs
    bindings = net.tensors().bindings
    residence = Residence(bindings, schedule, [torch.device("cpu"), torch.device("meta")])
    moved = residence.settle()
    places = {name: parameter.device.type for name, parameter in net.named_parameters()}
    assert moved
    assert residence.settle() == 0
    assert {places["model.fc1.weight"], places["model.fc9.weight"]} == {"cpu", "meta"}
    for region in ("fc1", "fc9"):
        assert net.state[f"momentum:{region}.weight"].device.type == places[f"model.{region}.weight"]


def test_a_copy_follows_its_original() -> None:
    from altprop.runtime.parallel.residents import _Copy

    original = torch.ones(3)
    copied = _Copy(lambda: original, torch.device("cpu:0"))
    first = copied()
    assert copied() is first
    original.mul_(2)
    assert torch.equal(copied(), original)


def test_operators_that_a_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert foreign.has_kernel(torch.ops.aten.mm.default, cpu)
    assert not foreign.has_kernel(torch.ops.aten._scaled_dot_product_efficient_attention.default, cpu)
    monkeypatch.setattr(foreign, "has_kernel", lambda operator, device: "tanh" not in operator.name())
    schedule = compiled("nine", "dfa").schedule(devices=2, batch=BATCH)
    with pytest.raises(ScheduleError, match=r'"F fc1 mb 0" runs aten.tanh.*, which cpu does not have: move the model'):
        schedule.runtime("streams")


class Shifted(nn.Module):
    """Adds a row of numbers that its forward makes out of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.first(x))
        return self.second(z + torch.arange(6, device=x.device) * torch.full_like(z, 0.1))


def test_pieces_follow_their_device() -> None:
    """Operators that make tensors out of nothing do so on the kind of device that runs them; the digest is the same."""
    optimizer = altprop.optim.SGD(lr=0.1)
    net = kept.compile(Shifted(), "dfa", example_inputs=(torch.zeros(3, 6),), optimizer=optimizer)
    made = [net.schedule(devices=[name] * 2, batch=BATCH) for name in ("cpu", "cuda:1")]
    named = [{str(d) for piece in s.lowered.pieces.values() for d in devices_in(piece.program.graph)} for s in made]
    assert named == [{"cpu"}, {"cuda"}]
    assert made[0].programs.digest == made[1].programs.digest


def devices_in(module: torch.fx.GraphModule) -> list[torch.device]:
    leaves = pytree.tree_leaves([(node.args, node.kwargs) for node in module.graph.nodes])
    return [leaf for leaf in leaves if isinstance(leaf, torch.device)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "cpu"], r'"a" is no device that tensors can be on: to run the schedule, name devices as "cpu" or'),
        (["cpu", "meta"], r'"meta" is no device that tensors can be on'),
        (["cpu", "cuda:17"], r'there is no "cuda:17" here, torch sees \d+ devices of that kind'),
    ],
)
@pytest.mark.parametrize("runtime", ["serial", "threads", "streams"])
def test_devices_that_are_not_there(names: Sequence[str], message: str, runtime: str) -> None:
    schedule = compiled("mlp", "dfa").schedule(devices=names, batch=BATCH)
    assert schedule.simulate().makespan > 0
    with pytest.raises(ScheduleError, match=message):
        schedule.runtime(runtime)


def test_compile_may_be_told_the_devices() -> None:
    net = kept.compile(
        tiny.mlp(2),
        rule="dfa",
        example_inputs=(torch.zeros(3, 7),),
        optimizer=altprop.optim.SGD(lr=0.1),
        devices=["cpu", torch.device("cuda:1")],
    )
    assert net.schedule(batch=4).programs.devices == ("cpu", "cuda:1")
    assert net.schedule(devices=3, batch=4).programs.devices == ("cpu",) * 3
