"""Schedules: their text, their laws, what tasks wait for, placement and order."""

import dataclasses
import itertools
import re
from collections.abc import Callable

import kept
import pytest
import tiny
import torch
from made_schedules import net_of, schedule_of
from torch import nn

import altprop
from altprop import Schedule, ScheduleError
from altprop.compiler.schedule.cost_model import CostModel
from altprop.compiler.schedule.place import balance
from altprop.compiler.schedule.tasks import dependencies
from altprop.compiler.schedule.verify_schedule import verify_schedule
from altprop.ir.machine import Machine
from altprop.ir.schedule import DevicePrograms as Programs
from altprop.ir.schedule import Task


def edited(schedule: Schedule, device: int, change: Callable[[list[Task]], None]) -> Programs:
    """The programs with one device's changed."""
    programs = [list(program) for program in schedule.programs.programs]
    change(programs[device])
    return dataclasses.replace(schedule.programs, programs=tuple(tuple(program) for program in programs))


def place_of(program: list[Task], kind: str, region: str) -> int:
    return next(i for i, task in enumerate(program) if (task.kind, task.region) == (kind, region))


# Text


@pytest.mark.parametrize(("name", "rule"), [("mlp", "dfa"), ("residual", "bp"), ("encoder", "reclra")])
@pytest.mark.parametrize("devices", [1, 3])
def test_text_parses_back(name: str, rule: str, devices: int) -> None:
    schedule = schedule_of(name, rule, devices)
    parsed = Schedule.parse(str(schedule))
    assert parsed.programs == schedule.programs
    assert str(parsed) == str(schedule)
    assert parsed.programs.fingerprint() == schedule.programs.fingerprint()


def test_text_is_golden(golden: Callable[[str, str], None]) -> None:
    golden("schedule_mlp_dfa_2", re.sub("(?m)^digest .*", "digest 0", str(schedule_of("mlp", "dfa", 2))))


def test_names_with_spaces_and_quotes_parse_back() -> None:
    schedule = schedule_of("mlp", "dfa", 2).programs
    odd = dataclasses.replace(schedule, devices=("cuda:0", 'a "fast" one, (really)'))
    assert Programs.parse(str(odd)) == odd


LINES: list[tuple[str, str, str]] = [
    ("altprop schedule 1", "altprop schedule 2", "line 1: version 2; this altprop reads version 1"),
    ("altprop schedule 1", "altprop plan 1", 'line 1: a schedule begins with the line "altprop schedule 1"'),
    ("  F fc1 mb 0 ", "  F fc1 mb zero ", "does not read as a line"),
    ("  U fc1 mb 0 (6, 7) bytes 192", "  U fc1 mb 0 (6, 7) bytes 192x", "does not read as a line"),
    ("  U fc1 mb 0 (6, 7) bytes 192", "  U fc1 mb 0 (6, 7) bytes 0192", "does not read as a line"),
    ("  STEP fc1 ", "  STOP fc1 ", "does not read as a line"),
    ("microbatches 2\n", "", "ends without microbatches"),
    ("batch 4\n", "batch 4\nbatch 4\n", '"batch" stands twice'),
    ("device 1 cpu\n", "device 2 cpu\n", "device 2 stands where device 1 should"),
    ("on 1\n", "on 0\n", "the program of device 0 stands where 1's should"),
    ("peer 1", "peer 7", "there is no device 7; there are 2"),
    ("on 0\n", "", 'before the first line "on DEVICE"'),
]


@pytest.mark.parametrize(("old", "new", "message"), LINES)
def test_bad_text_is_named(old: str, new: str, message: str) -> None:
    text = str(schedule_of("mlp", "dfa", 2))
    assert old in text
    with pytest.raises(ScheduleError, match=re.escape(message)):
        Schedule.parse(text.replace(old, new, 1))


def test_empty_text_is_refused() -> None:
    with pytest.raises(ScheduleError, match="a schedule begins with the line"):
        Schedule.parse("\n# nothing\n")


# Laws


def _drop(kind: str, region: str) -> Callable[[list[Task]], None]:
    return lambda program: program.pop(place_of(program, kind, region)) and None


def _replace(kind: str, region: str, **changes: object) -> Callable[[list[Task]], None]:
    def change(program: list[Task]) -> None:
        place = place_of(program, kind, region)
        program[place] = dataclasses.replace(program[place], **changes)  # type: ignore[arg-type]

    return change


def _move_to_end(kind: str, region: str) -> Callable[[list[Task]], None]:
    return lambda program: program.append(program.pop(place_of(program, kind, region)))


def _swap_receives(program: list[Task]) -> None:
    first, second = [i for i, task in enumerate(program) if task.kind == "RECV"][:2]
    program[first], program[second] = program[second], program[first]


def _read_foreign_gradient(program: list[Task]) -> None:
    program.append(dataclasses.replace(program[place_of(program, "U", "fc2")], reads=("gradient:fc1:fc1.weight",)))


BROKEN: list[tuple[str, int, Callable[[list[Task]], None], str]] = [
    ("no send", 0, _drop("SEND", "tanh_1@0"), "tanh_1@0 is received from device 0, which does not send it"),
    ("no receive", 1, _drop("RECV", "tanh_1@0"), "tanh_1@0 is sent to device 1, which does not receive it"),
    ("another order", 1, _swap_receives, "are received in another order than they are sent"),
    ("to itself", 0, _replace("SEND", "tanh_1@0", peer=0), "a transfer needs another device"),
    ("wrong shape", 0, _replace("SEND", "tanh_1@0", shape=(3, 3)), "tanh_1@0 has shape"),
    ("no forward", 0, _drop("F", "fc1"), "tanh@0 is not on device 0 yet"),
    ("freed too early", 0, _drop("E", "fc1"), "is not on device 0 yet"),
    ("left behind", 1, _drop("FREE", "fc3"), "is never freed"),
    ("step first", 0, lambda program: program.insert(0, program.pop(place_of(program, "STEP", "fc1"))), "is not on"),
    ("read behind step", 0, _move_to_end("F", "fc2"), "parameter:fc2.weight is read behind the STEP that moves it"),
    ("another's update", 0, _read_foreign_gradient, "which the update of fc1 makes"),
    ("away from home", 0, _replace("STEP", "fc1", changes=("parameter:fc3.weight",)), "but lives on device 1"),
    ("made twice", 0, lambda program: program.insert(1, program[0]), "tanh@0 is made a second time"),
    ("no form", 0, _replace("F", "fc1", writes=("thing@0",)), "thing@0 has no form"),
    ("read when freed", 0, _move_to_end("U", "fc1"), "was freed before"),
]


@pytest.mark.parametrize(("device", "change", "message"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_broken_schedule_is_refused(device: int, change: Callable[[list[Task]], None], message: str) -> None:
    broken = edited(schedule_of("mlp", "dfa", 2), device, change)
    with pytest.raises(ScheduleError, match=re.escape(message)):
        verify_schedule(broken)


def test_all_violations_come_at_once() -> None:
    broken = edited(schedule_of("mlp", "dfa", 2), 0, _drop("F", "fc1"))
    with pytest.raises(ScheduleError) as caught:
        verify_schedule(broken)
    assert int(re.findall(r"breaks (\d+) law", str(caught.value))[0]) == str(caught.value).count("    ^ ") > 1


def test_deadlock_prints_its_cycle() -> None:
    """Device 0 waits for the loss before its forward, device 1 for the forward."""

    def wait_first(program: list[Task]) -> None:
        program.insert(0, program.pop(place_of(program, "RECV", "mul_tensor@0")))
        for kind in ("U", "E"):
            place = place_of(program, kind, "fc1")
            program.insert(1, dataclasses.replace(program[place], reads=("mul_tensor@0",)))
            program.pop(place + 1)

    broken = edited(schedule_of("mlp", "dfa", 2), 0, wait_first)
    with pytest.raises(ScheduleError, match=r"device 0 waits in .* from device 1; device 1 waits in .* from device 0"):
        list(altprop.ir.schedule_walk.walk(broken))


# Tasks and what they wait for


def test_dependencies_are_reads_and_writes() -> None:
    tasks = [
        Task("F", "a", writes=("x",), reads=("p",)),
        Task("F", "b", reads=("x",)),
        Task("U", "a", reads=("x",), changes=("g",)),
        Task("U", "a", 1, changes=("g",)),
        Task("STEP", "a", reads=("g", "p"), changes=("p",)),
    ]
    assert dependencies(tasks) == [set(), {0}, {0}, {2}, {0, 3}]


@pytest.mark.parametrize("rule", ["bp", "fa", "dfa", "reclra"])
def test_updates_wait_for_no_other_update(rule: str) -> None:
    """On as many devices as regions: each is updated where it lives."""
    schedule = schedule_of("nine", rule, 9).programs
    for device, task in schedule.tasks():
        if task.kind == "U":
            regions = {t.region for t in schedule.programs[device] if t.kind == "U"}
            assert regions == {task.region}


def test_direct_rules_send_the_error_of_the_output_only() -> None:
    """Backwards travel a few numbers a sample, whatever the width of the layers."""
    schedule = schedule_of("nine", "dfa", 3).programs
    backwards = {t.region.partition("@")[0] for d, t in schedule.tasks() if t.kind == "SEND" and t.peer < d}
    assert len(backwards) == 1
    assert schedule.forms[backwards.pop()].shape == (2, 4)


def test_messages_are_made_where_the_weights_are() -> None:
    schedule = schedule_of("nine", "bp", 9).programs
    sent = {task.region for _, task in schedule.tasks() if task.kind == "SEND"}
    assert not [name for name in sent if name.startswith("parameter:")]
    assert [task for _, task in schedule.tasks() if task.kind == "M"]


def test_skip_connections_run_between_any_devices() -> None:
    schedule = schedule_of("residual", "bp", 3).programs
    pairs = {(device, task.peer) for device, task in schedule.tasks() if task.kind == "SEND"}
    assert pairs >= {(0, 1), (1, 2), (2, 1), (1, 0)}


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_parameters_move_once_a_step(microbatches: int) -> None:
    schedule = schedule_of("mlp", "dfa", 2, microbatches).programs
    kinds = [task.kind for _, task in schedule.tasks()]
    assert kinds.count("STEP") == 3
    assert kinds.count("U") == kinds.count("F") == 3 * microbatches


def test_work_in_place_counts() -> None:
    """Adding to a gradient, and moving a parameter, are work like any other."""
    schedule = schedule_of("mlp", "dfa", 1, 2).programs
    flops = {(task.kind, task.region, task.microbatch): task.flops for _, task in schedule.tasks()}
    assert flops["U", "fc1", 0] >= 2 * 7 * 6 * 2
    assert flops["U", "fc1", 1] >= flops["U", "fc1", 0]
    assert flops["STEP", "fc1", None] >= 2 * (7 * 6 + 6)  # momentum and the parameter


def test_a_shared_weight_makes_its_message_at_the_messages_source() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.last.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))

    optimizer = altprop.optim.SGD(lr=0.1)
    net = kept.compile(Tied(), "bp", example_inputs=(torch.zeros(3, 6),), optimizer=optimizer)
    messages = {task.region for _, task in net.schedule(devices=3, batch=4).programs.tasks() if task.kind == "M"}
    assert messages == {"last->middle", "middle->first"}


# Placement


def test_balance_cuts_where_the_heaviest_part_is_lightest() -> None:
    weights = dict(zip("abcdef", (5.0, 1, 1, 1, 4, 4), strict=True))
    placed = balance(weights, 3)
    loads = [sum(weights[n] for n in weights if placed[n] == part) for part in range(3)]
    names = list(weights)
    best = min(
        max(sum(weights[n] for n in part) for part in (names[:i], names[i:j], names[j:]))
        for i, j in itertools.combinations(range(1, 6), 2)
    )
    assert max(loads) == best == 6
    assert list(placed.values()) == sorted(placed.values())


def test_a_part_that_waits_longer_has_less_to_do() -> None:
    """Of six regions of one second each, a part waits half a second for each region before it."""
    weights = dict.fromkeys("abcdef", 1.0)
    assert list(balance(weights, 2).values()) == [0, 0, 0, 1, 1, 1]
    assert list(balance(weights, 2, waits=[0.5 * count for count in range(7)]).values()) == [0, 0, 0, 0, 1, 1]


def test_of_placements_the_one_that_ends_first_is_taken() -> None:
    """Under direct feedback the first device works on while later ones wait for the first micro-batch."""
    model = nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.Tanh())), nn.Linear(64, 10))
    net = kept.compile(model, "dfa", example_inputs=(torch.zeros(4, 64),), optimizer=altprop.optim.SGD(lr=0.1))
    machine = Machine(flops=1e9, overhead=0.0, link_latency=0.0, link_bandwidth=1e12, transfer_overhead=0.0)
    options = {"devices": 4, "batch": 64, "microbatches": 4, "machine": machine}
    equal = {region.name: min(place // 3, 3) for place, region in enumerate(net.graph.regions)}
    found, plain = net.schedule(**options), net.schedule(placement=equal, **options)
    assert found.simulate().makespan < 0.98 * plain.simulate().makespan
    tasks = [(device, task.region) for device, task in found.programs.tasks() if task.kind == "F"]
    regions = [len({region for device, region in tasks if device == number}) for number in range(4)]
    assert regions[0] > regions[3]


def test_a_faster_device_has_more_regions() -> None:
    assert list(balance(dict.fromkeys("abcdef", 1.0), 2, [1.0, 2.0]).values()) == [0, 0, 1, 1, 1, 1]
    machine = Machine(overhead=1e-4, speeds={"cuda": 8.0, "cuda:1": 1.0})
    for names, expected in ((["cpu", "cuda:0"], 1), (["cuda:0", "cpu"], 8), (["cpu", "cuda:1"], 5)):
        schedule = net_of("nine", "dfa").schedule(devices=names, batch=4, machine=machine)
        homes = schedule.programs.homes
        on_first = [layer for layer in range(1, 10) if homes[f"parameter:fc{layer}.weight"] == 0]
        assert abs(len(on_first) - expected) <= 1
        assert schedule.simulate().makespan == schedule.simulate(machine).makespan
        assert schedule.simulate(Machine(overhead=1e-4)).makespan > schedule.simulate().makespan or expected == 5


def test_regions_are_placed_by_the_times_that_were_measured() -> None:
    """What a machine's numbers take for light may be heavy: a first layer that takes as long as all others together."""
    net = net_of("nine", "dfa")
    options = {"devices": 2, "batch": 4}
    tasks = [task for _, task in net.schedule(**options).programs.tasks() if task.computes]
    times = {(task.kind, task.region, True): 8.0 if task.region == "fc1" else 1.0 for task in tasks}
    made = net.schedule(**options, machine=CostModel(measured=times))
    on_first = [layer for layer in range(1, 10) if made.programs.homes[f"parameter:fc{layer}.weight"] == 0]
    plain = net.schedule(**options).programs.homes
    assert on_first == [1]
    assert plain["parameter:fc2.weight"] == 0


def test_more_devices_than_regions() -> None:
    schedule = schedule_of("mlp", "dfa", 5).programs
    assert [bool(program) for program in schedule.programs] == [True, True, True, False, False]


def test_placement_of_ones_own() -> None:
    net = net_of("mlp", "dfa")
    schedule = net.schedule(devices=2, batch=4, placement={"fc1": 1, "fc2": 0, "fc3": 1}).programs
    assert schedule.homes["parameter:fc1.weight"] == 1
    assert schedule.homes["parameter:fc2.weight"] == 0


def test_plan_may_name_devices() -> None:
    plan = net_of("mlp", "dfa").plan
    regions = tuple(dataclasses.replace(r, device="b" if r.name == "fc1" else None) for r in plan.regions)
    made = kept.compile(
        tiny.mlp(2),
        rule="dfa",
        plan=dataclasses.replace(plan, regions=regions),
        example_inputs=(torch.zeros(3, 7),),
        optimizer=altprop.optim.SGD(lr=0.1),
    )
    assert made.schedule(devices=["a", "b"]).programs.homes["parameter:fc1.weight"] == 1
    with pytest.raises(ScheduleError, match='puts region "fc1" on b, which is not among the devices a, c'):
        made.schedule(devices=["a", "c"])


BAD_CALLS: list[tuple[dict[str, object], str]] = [
    ({"devices": 2, "microbatches": 3, "batch": 4}, "a batch of 4 cannot be cut into 3 micro-batches"),
    ({"devices": 2, "microbatches": 0, "batch": 4}, "cannot be cut into 0 micro-batches"),
    ({"devices": 0}, "devices=0: give one device's name, a number of devices, a list of names, or a DeviceMesh"),
    ({"devices": []}, "devices=[]: give one device's name, a number of devices, a list of names, or a DeviceMesh"),
    ({"devices": ["cpu", 1]}, "devices=['cpu', 1]: give one device's name"),
    ({"devices": True}, "devices=True: give one device's name"),
    ({"devices": "cpu"}, 'devices="cpu": give a number of devices, or a list of names'),
    ({"devices": 2, "placement": {"fc1": 0}}, '"fc2" is missing'),
    ({"devices": 2, "placement": {"fc1": 0, "fc2": 2, "fc3": 0}}, 'region "fc2" is on device 2; there are 2'),
    ({"devices": 2, "machine": "no.json"}, "no.json: No such file"),
]


@pytest.mark.parametrize(("options", "message"), BAD_CALLS)
def test_bad_calls_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=re.escape(message)):
        net_of("mlp", "dfa").schedule(**options)


# Machines


def test_machine_file(tmp_path) -> None:
    machine = Machine(flops=1e9, memory=10, speeds={"cuda": 3.5})
    machine.save(tmp_path / "machine.json")
    assert Machine.load(tmp_path / "machine.json") == machine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"version": 2}', 'a machine has "version": 1'),
        ('{"version": 1, "flop": 3}', 'there is no key "flop"'),
        ('{"version": 1, "flops": 0}', "flops is 0; it must be a number above 0"),
        ('{"version": 1, "speeds": {"cuda": 0}}', "the speed of cuda is 0; it must be a number above 0"),
        ('{"version": 1, "speeds": 3}', "speeds is 3; it must be a number for each name of a device"),
        ('{"version": 1, "overhead": "x"}', 'overhead is "x"; it must be a number, 0 or more'),
    ],
)
def test_bad_machine_file_is_named(tmp_path, text: str, message: str) -> None:
    (tmp_path / "machine.json").write_text(text)
    with pytest.raises(ScheduleError, match=re.escape(message)):
        Machine.load(tmp_path / "machine.json")
