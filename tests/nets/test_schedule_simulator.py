"""The simulator against clocks that were worked out by hand, and known orders of pipelines beside each other."""

import json
import re
from itertools import pairwise
from pathlib import Path

import kept
import pytest
import tiny
import torch
from made_schedules import net_of, schedule_of

import altprop
from altprop import Machine, Schedule, ScheduleError
from altprop.compiler.schedule.baselines import ORDERS, one_f_one_b_parts
from altprop.compiler.schedule.cost_model import CostModel
from altprop.compiler.schedule.simulate import simulate
from altprop.ir.schedule import DevicePrograms as Programs
from altprop.ir.schedule import Task, ValueForm
from altprop.ir.timeline import Timeline

# A flop takes a second and a byte on the link half of one; nothing else takes time.
CLOCK = CostModel(Machine(1.0, 1e30, 0.0, link_bandwidth=2.0, link_latency=1.0, transfer_overhead=0.0))


def by_hand() -> Programs:
    """Device 0 makes x for 3 s and sends its 4 bytes; device 1 works 2 s on its own, then 5 s on x."""
    form = ValueForm("x", "float32", (1,), (1,), 4)
    first = (
        Task("F", "a", 0, (), ("x@0",), shape=(1,), bytes=4, flops=3),
        Task("SEND", "x@0", 0, ("x@0",), shape=(1,), bytes=4, peer=1),
        Task("FREE", "a", 0, ("x@0",), bytes=4),
        Task("U", "a", 0, flops=1),
    )
    second = (
        Task("RECV", "x@0", 0, (), ("x@0",), shape=(1,), bytes=4, peer=0),
        Task("F", "c", 0, flops=2),
        Task("F", "b", 0, ("x@0",), flops=5),
        Task("FREE", "b", 0, ("x@0",), bytes=4),
    )
    return Programs("hand", "0", 1, 1, ("cpu", "cpu"), {}, {"x": form}, (first, second))


def test_clock_by_hand() -> None:
    timeline = simulate(by_hand(), CLOCK)
    assert timeline.makespan == 3 + (1 + 4 / 2) + 5
    assert timeline.busy == (4, 7)
    assert timeline.idle == (7, 4)
    assert timeline.bytes == 4
    assert timeline.peak == (4, 4)
    assert timeline.resident == (0, 0)
    assert [(t.start, t.end) for t in timeline.transfers] == [(3, 6)]
    named = [step for step in timeline.critical if not step.startswith("SEND")]
    assert named == ["F a mb 0 on 0", "x@0 from 0 to 1", "F b mb 0 on 1"]


def test_steps_in_a_row_by_hand() -> None:
    """The first device takes 4 a step and never waits; the second takes 7, and its first value comes at 6."""
    timeline = simulate(by_hand(), CLOCK, steps=3)
    assert timeline.makespan == 6 + 5 + 7 + 7, "`F c`, which reads nothing, begins while the first value is under way"
    assert timeline.step_seconds == timeline.makespan / 3
    assert timeline.busy == (3 * 4, 3 * 7)
    assert [(t.start, t.end) for t in timeline.transfers] == [(3, 6), (7, 10), (11, 14)]
    assert timeline.peak == simulate(by_hand(), CLOCK).peak
    with pytest.raises(ScheduleError, match=r"steps=0: simulate one step or more."):
        simulate(by_hand(), CLOCK, steps=0)
    with pytest.raises(ScheduleError, match=r"steps=0: choose a placement for one step or more."):
        net_of("nine", "bp").schedule(devices=2, batch=12, steps=0)


def test_local_losses_wait_for_nothing_between_steps() -> None:
    """Nothing comes back to an earlier device, so the busiest one always works; under `bp` it waits for errors."""
    waits = {}
    for rule in ("local_loss(beta=0.0)", "bp"):
        made = net_of("nine", rule).schedule(devices=3, batch=12, machine=MACHINE, steps=8)
        timeline = made.simulate(steps=8)
        waits[rule] = min(timeline.idle) / timeline.makespan
        assert timeline.peak == made.simulate().peak, "what a step leaves is counted once"
    assert waits["local_loss(beta=0.0)"] < 0.01
    assert waits["bp"] > 0.3


def test_a_faster_device_is_faster() -> None:
    fast = CostModel(CLOCK.machine, speeds={1: 5.0})
    assert simulate(by_hand(), fast).makespan == 3 + 3 + 1


def test_measured_times_count() -> None:
    measured = CostModel(CLOCK.machine, measured={("F", "b", True): 0.5})
    assert simulate(by_hand(), measured).makespan == 3 + 3 + 0.5


def test_links_carry_one_value_at_a_time() -> None:
    """Two values on one link: the second begins when the bytes of the first have left."""
    form = ValueForm("x", "float32", (1,), (1,), 4)
    names = ("x@0", "x@1")
    first = tuple(Task("SEND", n, i, (n,), shape=(1,), bytes=4, peer=1) for i, n in enumerate(names))
    made = Task("F", "a", 0, (), names, shape=(1,), bytes=8)
    second = tuple(Task("RECV", n, i, (), (n,), shape=(1,), bytes=4, peer=0) for i, n in enumerate(names))
    programs = ((made, *first), (*second, Task("F", "b", 0, names)))
    timeline = simulate(Programs("hand", "0", 1, 2, ("a", "b"), {}, {"x": form}, programs), CLOCK)
    assert [(t.start, t.end) for t in timeline.transfers] == [(0, 3), (2, 5)]


def test_memory_is_what_is_held() -> None:
    timeline = schedule_of("mlp", "dfa", 1, 1).simulate()
    net = net_of("mlp", "dfa")
    parameters = sum(p.numel() * 4 for p in net.model.parameters())
    feedback = sum(p.numel() * 4 for p in net.feedback_parameters())
    assert timeline.resident == (2 * parameters + feedback,)  # momentum is as large as what it belongs to
    assert timeline.peak[0] > timeline.resident[0] + parameters


def test_one_device_is_never_idle() -> None:
    timeline = schedule_of("nine", "reclra", 1).simulate()
    assert timeline.idle[0] == pytest.approx(0, abs=1e-9)
    assert timeline.bytes == 0


# Orders of pipelines


def test_one_f_one_b() -> None:
    kinds = [f"{kind}{index}" for kind, index in one_f_one_b_parts(0, 3, 4) if kind != "U"]
    assert kinds == ["F0", "F1", "F2", "B0", "F3", "B1", "B2", "B3"]
    last = [f"{kind}{index}" for kind, index in one_f_one_b_parts(2, 3, 4) if kind != "U"]
    assert last == ["F0", "B0", "F1", "B1", "F2", "B2", "F3", "B3"]


MACHINE = Machine(overhead=1e-4, transfer_overhead=0.0, link_latency=0.0)


def makespans(rule: str) -> dict[str, float]:
    net = net_of("nine", rule)
    orders = {name: net.schedule(devices=3, microbatches=6, batch=12, machine=MACHINE, order=name) for name in ORDERS}
    return {name: schedule.simulate().makespan for name, schedule in orders.items()}


def test_orders_of_backpropagation_rank_as_published() -> None:
    """Without costs of transfers: naive is slowest, zero-bubble fastest; list scheduling is as good as the best."""
    found = makespans("bp")
    assert found["naive"] > 1.5 * found["1f1b"]
    assert found["gpipe"] == pytest.approx(found["1f1b"], rel=0.1)
    assert found["zero-bubble"] < 0.97 * found["1f1b"]
    assert found["list"] <= 1.02 * found["zero-bubble"]


def test_local_updates_run_side_by_side() -> None:
    """Without micro-batches backpropagation waits along the chain; direct feedback does all updates at once."""
    spans = [
        net_of("nine", rule).schedule(devices=3, batch=12, machine=MACHINE).simulate().makespan
        for rule in ("dfa", "bp")
    ]
    assert spans[0] < 0.92 * spans[1]


class Even(CostModel):
    """Forwards, messages and updates take a second each; nothing else takes time."""

    def seconds(self, task: Task, device: int = 0) -> float:
        return 0.0 if task.region.startswith("<") else {"F": 1.0, "U": 1.0, "M": 1.0}.get(task.kind, 0.0)

    def transfer(self, size: int) -> float:
        return 0.0


def even_timeline(rule: str, microbatches: int, order: str = "list") -> Timeline:
    """Nine layers on three devices, three on each."""
    costs = Even(Machine(link_bandwidth=1e30, link_latency=0.0))
    placement = {f"fc{layer + 1}": layer // 3 for layer in range(9)}
    batch = 2 * microbatches
    schedule = net_of("nine", rule).schedule(
        devices=3, microbatches=microbatches, batch=batch, machine=costs, order=order, placement=placement
    )
    return schedule.simulate()


@pytest.mark.parametrize("rule", ["drtp", "local_loss"])
def test_unlocked_updates_pipeline_without_a_bubble(rule: str) -> None:
    """Devices wait while the pipeline fills or empties, and never between."""
    fill, each = 3.0, 6.0
    timeline = even_timeline(rule, 6)
    assert timeline.makespan == 6 * each + 2 * fill
    assert timeline.idle == (2 * fill,) * 3
    for device in range(3):
        events = [event for event in timeline.events if event.device == device]
        assert events[0].start == device * fill
        assert all(one.end == other.start for one, other in pairwise(events))
    assert even_timeline("bp", 6, "1f1b").idle[0] > 2.5 * 2 * fill


@pytest.mark.parametrize(("rule", "end"), [("drtp", 6.0), ("local_loss", 6.0), ("dfa", 12.0), ("bp", 20.0)])
def test_unlocked_updates_wait_for_nothing_behind_them(rule: str, end: float) -> None:
    """The first device is done while the forward is under way; DFA waits for the loss, backpropagation for all."""
    events = even_timeline(rule, 1).events
    assert max(event.end for event in events if event.device == 0 and event.kind != "STEP") == end


def test_gpipe_holds_more_than_one_f_one_b() -> None:
    net = net_of("nine", "bp")
    peaks = [
        net.schedule(devices=3, microbatches=6, batch=12, order=name).simulate().peak[2] for name in ("gpipe", "1f1b")
    ]
    assert peaks[0] > peaks[1]


@pytest.mark.parametrize("order", ["naive", "gpipe", "1f1b", "zero-bubble"])
def test_known_orders_run(order: str) -> None:
    """They are schedules like any other: the serial runtime trains the same net by them."""
    torch.manual_seed(0)
    states = []
    for name in ("list", order):
        torch.manual_seed(0)
        net = kept.compile(
            tiny.mlp(3), rule="bp", example_inputs=(torch.zeros(3, 7),), optimizer=altprop.optim.SGD(lr=0.1)
        )
        runtime = net.schedule(devices=2, microbatches=3, batch=6, order=name).runtime()
        runtime.step(torch.randn(6, 7, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 4)
        states.append(net.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_unknown_order_is_refused() -> None:
    with pytest.raises(
        ScheduleError, match='there is no order "fast"; there are list, naive, gpipe, 1f1b, zero-bubble'
    ):
        net_of("mlp", "bp").schedule(devices=2, batch=4, order="fast")


# What people look at


def test_perfetto_trace(tmp_path: Path) -> None:
    schedule = schedule_of("mlp", "dfa", 2)
    trace = json.loads(schedule.to_perfetto(tmp_path / "trace.json").read_text())
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    timeline = schedule.simulate()
    assert len(slices) == len(timeline.events) + len(timeline.transfers)
    assert {event["tid"] for event in slices} == {0, 1, 2, 3}
    assert max(event["ts"] + event["dur"] for event in slices) == pytest.approx(timeline.makespan * 1e6, rel=1e-3)
    names = {event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert names >= {"device 0 (cpu)", "device 1 (cpu)", "link 0 -> 1", "link 1 -> 0"}


def test_slices_of_a_track_do_not_overlap(tmp_path: Path) -> None:
    """By a nanosecond is enough: Perfetto's importer drops them."""
    machine = Machine(flops=1.7e9, bandwidth=0.3e9, overhead=1.37e-6, link_latency=1e-4)
    schedule = net_of("mlp", "reclra").schedule(devices=2, microbatches=4, batch=8, machine=machine)
    trace = json.loads(schedule.to_perfetto(tmp_path / "trace.json").read_text())
    tracks: dict[int, list[tuple[int, int]]] = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            start = round(event["ts"] * 1e3)
            tracks.setdefault(event["tid"], []).append((start, start + round(event["dur"] * 1e3)))
    assert len(tracks) > 4, "messages of a link are in flight together"
    for times in tracks.values():
        assert all(one[1] <= other[0] for one, other in pairwise(sorted(times)))


def test_chart(tmp_path: Path) -> None:
    path = schedule_of("mlp", "dfa", 2).draw(tmp_path / "chart.svg")
    assert "milliseconds" in path.read_text()
    with pytest.raises(ScheduleError, match=r"a chart's file ends in one of .svg, .png, .pdf"):
        schedule_of("mlp", "dfa", 2).draw(tmp_path / "chart.gif")


def test_grid_and_summary() -> None:
    timeline = schedule_of("nine", "dfa", 3).simulate()
    rows = timeline.grid(40).splitlines()
    assert len(rows) == 4
    assert all(re.fullmatch(r"\d cpu \|[FEMUsSR.]{40}\|", row) for row in rows[1:])
    assert "U" in rows[1]
    assert re.search(r"device 2 \(cpu\): busy .* idle .*, peak memory ", str(timeline))


def test_parsed_text_simulates_alike() -> None:
    schedule = schedule_of("nine", "reclra", 3)
    assert Schedule.parse(str(schedule)).simulate() == schedule.simulate()


def test_measured_tasks() -> None:
    schedule = schedule_of("mlp", "dfa", 2)
    before = {key: value.clone() for key, value in net_of("mlp", "dfa").state_dict().items()}
    costs = schedule.measure(torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64), repeats=2)
    kinds = {(task.kind, task.region, not task.microbatch) for _, task in schedule.programs.tasks() if task.computes}
    assert costs.measured.keys() == kinds
    assert schedule.simulate(costs).makespan >= max(costs.measured.values())
    torch.testing.assert_close(before, dict(net_of("mlp", "dfa").state_dict()), rtol=0, atol=0)
