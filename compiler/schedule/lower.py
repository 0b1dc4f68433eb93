"""Lowers a derived graph to one program a device."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from altprop.compiler.schedule.cost_model import CostModel
from altprop.compiler.schedule.fix_batch import Sizes
from altprop.compiler.schedule.on_device import move_piece, without_devices
from altprop.compiler.schedule.order import list_order
from altprop.compiler.schedule.pieces import NetPieces, Tuning, cut
from altprop.compiler.schedule.place import place_regions, place_tasks
from altprop.compiler.schedule.simulate import simulate
from altprop.compiler.schedule.tagged import TaggedStep
from altprop.compiler.schedule.tasks import dependencies, make_forms, make_tasks
from altprop.compiler.schedule.transfers import TransferEmitter
from altprop.compiler.schedule.verify_schedule import kept_values, verify_schedule
from altprop.ir.devices import device_called
from altprop.ir.errors import ScheduleError
from altprop.ir.graph import ErrorGraph
from altprop.ir.learner_operators import refuse_learners
from altprop.ir.loss import Loss
from altprop.ir.schedule import DevicePrograms, Lowered, Piece, Task, ValueForm
from altprop.ir.structures import structure_of
from altprop.passes.flattening.builder import Tag

Order = Callable[["Problem"], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What an order has to solve.

    Attributes:
        tasks: in the reference order.
        waits: what each task waits for.
        placed: device of each task.
        forms: forms of the values.
        costs: the cost model.
        devices: number of devices.
        regions: device of each region.
        microbatches: number of micro-batches.
    """

    tasks: Sequence[Task]
    waits: Sequence[set[int]]
    placed: Sequence[int]
    forms: Mapping[str, ValueForm]
    costs: CostModel
    devices: int
    regions: Mapping[str, int]
    microbatches: int


def by_list(problem: Problem) -> list[list[int]]:
    """The order that list scheduling finds."""
    p = problem
    return list_order(p.tasks, p.waits, p.placed, p.forms, p.costs, p.devices)


class Lowering:
    """The pieces of one net for one size of its micro-batches; schedules are made of them.

    Args:
        graph: the derived graph.
        loss: the loss.
        target: tree of fake tensors of the target's form.
        batch: samples of a step.
        microbatches: number of micro-batches.
        tuning: what the pieces may be tuned for.
        join: how many micro-batches an update serves.

    Raises:
        ScheduleError: the batch cannot be cut, or the target's form is not known.
    """

    def __init__(
        self,
        graph: ErrorGraph,
        loss: Loss,
        target: Any,
        batch: int,
        microbatches: int = 1,
        tuning: Tuning = "cpu",
        join: int = 1,
    ) -> None:
        refuse_learners(graph.regions, "a schedule", ScheduleError)
        if microbatches < 1 or batch % microbatches:
            raise ScheduleError(
                f"a batch of {batch} cannot be cut into {microbatches} micro-batches of one size: "
                "choose a number that divides it."
            )
        if join < 1 or microbatches % join:
            raise ScheduleError(
                f"join={join}: updates cannot serve {join} of {microbatches} micro-batches at a time: "
                "choose a number that divides them."
            )
        self.graph, self.batch, self.microbatches = graph, batch, microbatches
        several = [Sizes(graph.captured, batch // microbatches * count) for count in dict.fromkeys((1, join))]
        self.sizes = several[0]
        self.mean, self.target = loss.mean, structure_of(target)
        builders = [TaggedStep(graph, loss, target, sizes, tuning == "cpu") for sizes in several]
        self.cut: NetPieces = cut(builders, microbatches, several, tuning)
        self.tasks = make_tasks(self.cut, microbatches, self.sizes)
        self.waits = dependencies(self.tasks)
        self.forms = make_forms(self.cut, self.sizes)

    def digest(self) -> str:
        """Digest of what the tasks run."""
        pieces = self.cut.pieces.items()
        text = "\n".join(f"{kind} {region}\n{without_devices(p.program.graph.code)}" for (kind, region), p in pieces)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def schedule(
        self,
        devices: Sequence[str],
        costs: CostModel | None = None,
        *,
        order: Order = by_list,
        placement: Mapping[str, int] | None = None,
        name: str = "list",
        steps: int = 1,
    ) -> Lowered:
        """Places, orders, adds transfers, and verifies.

        Args:
            devices: names of the devices.
            costs: the cost model.
            order: finds the order of the tasks.
            placement: device of each region; None tries contiguous stages of equal work, and of equal work and
                wait, and takes what ends first.
            name: name of the order.
            steps: what ends first is told by so many steps in a row.

        Raises:
            ScheduleError: the result breaks a law, or there is no step.
        """
        if steps < 1:
            raise ScheduleError(f"steps={steps}: choose a placement for one step or more.")
        costs = costs or CostModel()
        tried = [dict(placement)] if placement else place_regions(self.graph, self.tasks, devices, costs)
        found = [self._programs(regions, devices, costs, order, name) for regions in tried]
        made, placed = found[0] if len(found) == 1 else min(found, key=lambda one: _seconds(one[0], costs, steps))
        verify_schedule(made)
        return Lowered(made, self._on_devices(placed, devices), self.mean, self.target)

    def _programs(
        self, regions: Mapping[str, int], devices: Sequence[str], costs: CostModel, order: Order, name: str
    ) -> tuple[DevicePrograms, list[int]]:
        """The programs of one placement, and the device of each task."""
        self._check_placement(regions, len(devices))
        placed = place_tasks(self.graph, self.tasks, regions)
        problem = Problem(self.tasks, self.waits, placed, self.forms, costs, len(devices), regions, self.microbatches)
        emitter = TransferEmitter(
            self.tasks, placed, order(problem), self.forms, sorted(kept_values(self.microbatches))
        )
        made = DevicePrograms(
            name=name,
            digest=self.digest(),
            batch=self.batch,
            microbatches=self.microbatches,
            devices=tuple(devices),
            homes=emitter.homes,
            forms=self.forms,
            programs=emitter.emit(),
        )
        return made, placed

    def _on_devices(self, placed: Sequence[int], devices: Sequence[str]) -> dict[Tag, Piece]:
        """All pieces, for the kinds of devices that run them; where torch knows no such kind they stay as they are."""
        number = {(task.kind, task.region): device for task, device in zip(self.tasks, placed, strict=True)}
        found = {}
        for tag, piece in self.cut.pieces.items():
            device = device_called(devices[number[tag[0].rstrip("+"), tag[1]]])
            found[tag] = piece if device is None else move_piece(piece, torch.device(device.type))
        return found

    def _check_placement(self, regions: Mapping[str, int], devices: int) -> None:
        names = {region.name for region in self.graph.regions}
        wrong = sorted({*names} ^ {*regions})
        if wrong:
            raise ScheduleError(f'placement: "{wrong[0]}" is missing, or is no region of the net.')
        far = [name for name, device in regions.items() if not 0 <= device < devices]
        if far:
            raise ScheduleError(f'placement: region "{far[0]}" is on device {regions[far[0]]}; there are {devices}.')


def _seconds(made: DevicePrograms, costs: CostModel, steps: int) -> float:
    """How long some steps take, to a precision that rounding does not reach."""
    return float(f"{simulate(made, costs, steps).makespan:.9g}")
