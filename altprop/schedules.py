"""`Schedule`: what `net.schedule` returns."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from altprop.compiler.export.door import export_programs
from altprop.compiler.export.retrace import RATE
from altprop.compiler.pipeline import Options, fake_target
from altprop.compiler.schedule.baselines import get_order
from altprop.compiler.schedule.cost_model import CostModel
from altprop.compiler.schedule.lower import Lowering
from altprop.compiler.schedule.pieces import Tuning
from altprop.compiler.schedule.simulate import simulate
from altprop.compiler.schedule.verify_schedule import verify_schedule
from altprop.exporting import subject_of
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.decisions import noting
from altprop.ir.devices import device_called
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.least_batch import LONELY, least_batch
from altprop.ir.machine import Machine
from altprop.ir.program import Slot
from altprop.ir.schedule import DevicePrograms as Programs
from altprop.ir.schedule import Lowered, location
from altprop.ir.timeline import Timeline
from altprop.ir.values import RESIDENT
from altprop.read_devices import Devices, read_devices
from altprop.runtime.net import LocalNet
from altprop.runtime.parallel.base import Runtime
from altprop.runtime.parallel.distributed import DistributedRuntime
from altprop.runtime.parallel.serial import SerialRuntime
from altprop.runtime.parallel.streams import StreamsRuntime
from altprop.runtime.parallel.task_timer import TaskTimer
from altprop.runtime.parallel.threads import ThreadsRuntime

RUNTIMES: dict[str, Callable[..., Runtime]] = {
    "serial": SerialRuntime,
    "threads": ThreadsRuntime,
    "streams": StreamsRuntime,
    "distributed": DistributedRuntime,
}


class Schedule:
    """One program a device: text that parses back, a simulation, and what runs it.

    Attributes:
        programs: the programs as data.
        costs: the cost model that it was made with.
    """

    def __init__(
        self,
        programs: Programs,
        costs: CostModel | None = None,
        lowered: Lowered | None = None,
        net: LocalNet | None = None,
        mesh: DeviceMesh | None = None,
    ) -> None:
        self.programs = programs
        self.costs = costs or CostModel()
        self._lowered, self._net, self._mesh = lowered, net, mesh

    @staticmethod
    def parse(text: str, where: str = "schedule text") -> "Schedule":
        """Builds a schedule from its text, and verifies it; it can be simulated and drawn, and bound to a net to run.

        Raises:
            ScheduleError: names the line that cannot be read, or lists the laws that the schedule breaks.
        """
        programs = Programs.parse(text, where)
        verify_schedule(programs)
        return Schedule(programs)

    def bind(self, other: "Schedule") -> "Schedule":
        """Returns these programs with the operators of another schedule of the same net, such as an edited text's.

        Raises:
            ScheduleError: the other schedule runs other operators.
        """
        if other._lowered is None or other.programs.digest != self.programs.digest:
            raise ScheduleError(
                f"the schedule was made for operators with digest {self.programs.digest}, not "
                f"{other.programs.digest}: use the same model, rule, plan, batch, micro-batches and join."
            )
        lowered = dataclasses.replace(other._lowered, schedule=self.programs)
        return Schedule(self.programs, other.costs, lowered, other._net, other._mesh)

    def simulate(self, machine: Machine | CostModel | None = None, steps: int = 1) -> Timeline:
        """Predicts a step: time, busy and idle devices, bytes moved, peak memory, critical path.

        Args:
            machine: another machine or cost model than the schedule was made with.
            steps: how many steps in a row. A device begins the next step when its own part of this one is done, so
                where nothing comes back from later devices, a step takes less time than one alone.
                `Timeline.step_seconds` is the time of one of them.

        Raises:
            ScheduleError: `steps` is below 1.
        """
        costs = CostModel.on(machine, self.programs.devices) if isinstance(machine, Machine) else machine
        return simulate(self.programs, costs or self.costs, steps)

    def to_perfetto(self, path: str | Path) -> Path:
        """Writes the simulated step as a trace that ui.perfetto.dev opens. Returns the path."""
        return self.simulate().to_perfetto(path)

    def draw(self, path: str | Path) -> Path:
        """Draws the simulated step as a Gantt chart: svg, png or pdf. Returns the path."""
        return self.simulate().draw(path)

    def grid(self, columns: int = 72) -> str:
        """Returns the simulated step as text, time from left to right, one row a device."""
        return self.simulate().grid(columns)

    def save(self, path: str | Path) -> Path:
        """Writes the text. Returns the path."""
        path = Path(path)
        path.write_text(f"{self}\n", "utf-8")
        return path

    def export(self, folder: str | Path, target: Any = None) -> Path:
        """Writes each device's program as ONNX files, and `schedule.json`, which says what goes where.

        Tasks are ordered anew for operators that nothing fuses, with the devices, the placement and the order that this
        schedule has, and with an update for every micro-batch.

        Args:
            folder: where to; it is made.
            target: an example of the loss's target where it has no usual form.

        Returns:
            The folder.

        Raises:
            ScheduleError: a schedule that was parsed and not bound to a net.
            ExportError: an operator has no form in ONNX, the model draws random numbers, or the files, run one after
                another, do not do what torch does.
        """
        net = self._bound()
        options: Options = net.compilations.compiler.options
        subject = subject_of(net, options, target)
        return export_programs(subject, self._plain(net, options, target), Path(folder), self._follow)

    def _follow(self, given: Mapping[Slot, torch.Tensor]) -> Mapping[Slot, torch.Tensor]:
        """Runs a step on a copy of the net, from given tensors: what files are compared with."""
        runtime = SerialRuntime(self.lowered, copy.deepcopy(self._bound()).tensors())
        present = {slot: runtime.net.bindings.getter(slot) for slot in given if slot.kind in RESIDENT}
        states = {slot: getter() for slot, getter in present.items() if getter is not None}
        with torch.no_grad():
            for slot, tensor in states.items():
                tensor.copy_(given[slot])
            optimizer = dataclasses.replace(runtime.net.optimizer, lr=RATE, feedback_lr=RATE)
            scalars = optimizer.scalars(int(given[Slot("state", "step")]) + 1)
            named = {str(location(s)): value for s, value in given.items() if s.kind in ("input", "target")}
            loss = runtime.run_named(named, scalars)
        assert loss is not None
        return {**states, Slot("loss", "loss"): loss}

    def _plain(self, net: LocalNet, options: Options, target: Any) -> Lowered:
        """The same schedule of operators that nothing fuses, reuses or tunes."""
        made = self.programs
        microbatches, batch = made.microbatches, made.batch
        lowering = make_lowering(net, options, microbatches=microbatches, batch=batch, target=target, tuning="none")
        regions = {region.name for region in net.graph.regions}
        placement = {task.region: device for device, task in made.tasks() if task.computes and task.region in regions}
        return lowering.schedule(made.devices, self.costs, order=get_order(made.name), placement=placement)

    def runtime(self, name: str = "serial", **options: Any) -> Runtime:
        """Returns what runs training steps by this schedule, on the net's own parameters.

        Args:
            name: "serial"; "threads", one a device; "streams", one a device on GPUs, all served by one thread; or
                "distributed", one process a device, under torchrun.
            options: of the runtime: see the classes in `altprop.runtime.parallel`.

        Raises:
            ScheduleError: unknown name, or a schedule that was parsed and not bound to a net.
        """
        if name not in RUNTIMES:
            raise ScheduleError(f'there is no runtime "{name}"; there are {", ".join(RUNTIMES)}.')
        if name == "distributed" and self._mesh is not None:
            options = {"mesh": self._mesh, **options}
        return RUNTIMES[name](self.lowered, self._bound().tensors(), **options)

    def measure(self, inputs: Any, target: Any, repeats: int = 5) -> CostModel:
        """Times every task on a copy of the net; simulations with the result know this machine's own times.

        `net.schedule(machine=)` takes it too: then regions are placed, and tasks ordered, by these times.

        Args:
            inputs: as in `net.step`, with as many samples as the schedule was made for.
            target: the loss's target.
            repeats: steps that are timed.
        """
        timer = self.timer()
        timer.warm_up(inputs, target)
        for _ in range(repeats):
            timer.step(inputs, target)
        return dataclasses.replace(self.costs, measured=timer.medians())

    def timer(self) -> TaskTimer:
        """Returns what times tasks step by step, on a copy of the net, for measurements in turns with others."""
        return TaskTimer(SerialRuntime(self.lowered, copy.deepcopy(self._bound()).tensors()))

    @property
    def lowered(self) -> Lowered:
        """The programs with their operators.

        Raises:
            ScheduleError: the schedule was parsed and not bound to a net.
        """
        self._bound()
        assert self._lowered is not None
        return self._lowered

    def _bound(self) -> LocalNet:
        if self._net is None or self._lowered is None:
            raise ScheduleError(
                "a schedule from text has no operators: bind it, Schedule.parse(text).bind(net.schedule(...))."
            )
        return self._net

    def __str__(self) -> str:
        return str(self.programs)


def make_schedule(
    net: LocalNet,
    options: Options,
    devices: Any,
    *,
    microbatches: int = 1,
    join: int = 1,
    batch: int | None = None,
    target: Any = None,
    placement: Mapping[str, int] | None = None,
    machine: Machine | CostModel | str | Path | None = None,
    order: str = "list",
    steps: int = 1,
) -> Schedule:
    """Makes a schedule of a compiled net; see `LocalNet.schedule`."""
    if isinstance(devices, str | torch.device):
        raise ScheduleError(f'devices="{devices}": give a number of devices, or a list of names.')
    wanted = devices if isinstance(devices, Devices) else read_devices(devices, ScheduleError)
    if join > 1 and order != "list":
        raise ScheduleError(f'join={join}: the order "{order}" updates after every micro-batch; leave order= out.')
    names = wanted.named(_device_of(net))
    if isinstance(machine, str | Path):
        machine = Machine.load(machine)
    costs = machine if isinstance(machine, CostModel) else CostModel.on(machine or Machine(), names)
    everywhere = all(device is None or device.type == "cpu" for device in map(device_called, names))
    tuning: Tuning = "cpu" if everywhere else "any"
    facts = BatchFacts([net.compilations.present().compiled.facts])
    with noting(facts):
        lowering = make_lowering(
            net, options, microbatches=microbatches, join=join, batch=batch, target=target, tuning=tuning
        )
        found = get_order(order)
        lowered = lowering.schedule(names, costs, order=found, placement=placement, name=order, steps=steps)
    if net.graph.captured.is_dynamic:
        facts.refuse("a schedule cuts batches to pieces of any size", ScheduleError)
    return Schedule(lowered.schedule, costs, lowered, net, wanted.mesh)


def _check_rules(graph: ErrorGraph) -> None:
    """Refuses what is not cut into tasks: a step by chance, and a rule's last word where no task has it."""
    if graph.alternation is not None:
        raise ScheduleError("a net whose rules take turns, as hdfa's do, runs on one device: choose one of its rules.")
    last = next((update.region for update in graph.updates.values() if update.finish), None)
    if last is not None and graph.optimizer is None:
        raise ScheduleError(
            f'the rule of region "{last}" decays or projects its updates: a schedule of it needs the optimizer inside '
            "the program, altprop.compile(..., optimizer=...)."
        )


def make_lowering(
    net: LocalNet,
    options: Options,
    *,
    microbatches: int = 1,
    join: int = 1,
    batch: int | None = None,
    target: Any = None,
    tuning: Tuning = "cpu",
) -> Lowering:
    """Cuts a net into the pieces that schedules are made of."""
    graph = net.graph
    _check_rules(graph)
    form = fake_target(graph.captured, options.loss, target)
    size = (batch or net.example_batch) // max(microbatches, 1)
    if 0 < size < least_batch(graph.captured.graph):
        raise ScheduleError(f"micro-batches of one sample do not do: {LONELY}")
    return Lowering(graph, options.loss, form, batch or net.example_batch, microbatches, tuning, join)


def _device_of(net: LocalNet) -> str:
    first = next(net.model.parameters(), None)
    return "cpu" if first is None else str(first.device)
