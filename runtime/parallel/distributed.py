"""The distributed runtime: one process a device, over torch.distributed; start it with plain `torchrun`.

Ranks run the programs of devices 0, 1, ... Each holds the parameters of its own regions only. Transfers are batched
point-to-point operations; their shapes stand in the program and are never sent. Before the first step all ranks
compare the fingerprints of their programs.

With more ranks than devices there are *replicas*: a mesh `("replica", "region")` of ranks, in which every replica
trains on samples of its own and gradients are averaged (of losses that are sums, added) before they move parameters.

All ranks begin with the state of the first one; settings, and the first batch within a replica, are compared.

A rank that ends or hangs ends the step on every other rank: with an error that says what was waited for, at once where
the connection breaks, else after the time limit of the process group.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from altprop.ir.devices import kind_of, module_of
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import Lowered, Task, is_gradient, is_owned, residents
from altprop.ir.values import SCHEDULE
from altprop.runtime.parallel.agree import first_line, tell
from altprop.runtime.parallel.base import Runtime
from altprop.runtime.parallel.foreign import refuse_foreign
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.residents import Residence, release, slot_of
from altprop.runtime.parallel.same_start import compare_batches, compare_settings, share_state
from altprop.runtime.parallel.transport import Transport, device_of_rank, device_type_of_backend
from altprop.runtime.parallel.worker import Worker


class DistributedRuntime(Runtime):
    """Runs the program of this rank's device.

    Args:
        lowered: the schedule and what its tasks run.
        net: tensors of the net.
        mesh: mesh of ranks with the dimension "region" and, for replicas, "replica"; None makes one of all ranks.
        release_others: whether parameters, feedback and state of other ranks' regions are given up, so that this rank
            holds its own alone; they become tensors without memory.
        timeout: seconds that a GPU may take for a step until the others count as gone; on the CPU the time limit of the
            process group holds.

    Raises:
        ScheduleError: there is no process group, it does not fit the devices, or the ranks have different programs.
    """

    def __init__(
        self,
        lowered: Lowered,
        net: NetTensors,
        mesh: DeviceMesh | None = None,
        release_others: bool = True,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(lowered, net)
        self._limit = timedelta(seconds=timeout)
        self.mesh = mesh if mesh is not None else default_mesh(len(self.schedule.devices))
        region = self.mesh["region"]
        self.device = region.get_local_rank()
        self.replicas = self.mesh["replica"].size() if "replica" in (self.mesh.mesh_dim_names or ()) else 1
        self._replica = self.mesh["replica"].get_local_rank() if self.replicas > 1 else 0
        self._compared = False
        ranks: list[int] = region.mesh.tolist()
        if len(ranks) != len(self.schedule.devices):
            raise ScheduleError(
                f"the schedule is for {len(self.schedule.devices)} devices, the mesh has {len(ranks)} ranks a "
                "replica: make the schedule with devices= that number."
            )
        self.place = device_of_rank(self.schedule.devices[self.device], self._own())
        self._mail = Transport(self.schedule, self.device, self.place, ranks, region.get_group())
        with self._current():
            self._compare()
            compare_settings(net, self.schedule)
            share_state(net, self.schedule)
        places = [self.place if number == self.device else None for number in range(len(ranks))]
        self.residence = Residence(net.bindings, self.schedule, places)
        self.residence.settle()
        refuse_foreign(lowered, self.device, self.place)
        self.worker = Worker(lowered, self.device, self.residence.at(self.device, self.place), self._mail)
        if release_others:
            release(net.bindings, self.schedule, self.held)
        self._needs = self.worker.inputs()
        self._actions = [(task, self._reducing(task, action)) for task, action in self.worker.actions]

    @property
    def held(self) -> frozenset[str]:
        """Values that this rank holds between steps, `kind:name`."""
        return residents(self.schedule, self.device)

    def _own(self) -> torch.device:
        """The device that this rank's part of the net is on."""
        held = (slot_of(name) for name in sorted(self.held) if is_owned(name))
        return next((self.net.bindings.get(slot).device for slot in held), torch.device("cpu"))

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint of the run; all ranks call it. Returns its folder."""
        with self._current():
            return super().save(folder)

    def resume(self, folder: str | Path) -> int:
        """Loads the last whole checkpoint; all ranks call it. Returns the number of steps that were done."""
        with self._current():
            return super().resume(folder)

    def _current(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the rank's GPU the current one: torch's collectives of objects go by it."""
        return contextlib.nullcontext() if self.place.type == "cpu" else module_of(self.place).device(self.place)

    def _compare(self) -> None:
        """All ranks must have the same programs, on devices of the same kinds; each has its own number."""
        schedule = dataclasses.replace(self.schedule, devices=tuple(map(kind_of, self.schedule.devices)))
        mine = f"{schedule.fingerprint()} torch {torch.__version__}"
        found = tell(mine, "compare programs")
        others = [rank for rank, one in enumerate(found) if one != mine]
        if others:
            raise ScheduleError(
                f"rank {dist.get_rank()} has program {mine}, but rank {others[0]} has {found[others[0]]}: start all "
                "ranks with the same model, rule, plan, schedule and versions."
            )

    def step(self, inputs: Any, target: Any) -> torch.Tensor | None:
        """Runs one training step; the first one compares the batches of the ranks.

        Args:
            inputs: as in `net.step`, the same on all ranks of a replica; a rank that reads none may pass None.
            target: the loss's target, likewise.

        Returns:
            The loss before the step; None in a process that does not make it.

        Raises:
            ScheduleError: the batch is not that of the schedule or of the other ranks, or a rank ended or hangs.
        """
        if not self._compared:
            scalars = self.net.optimizer.scalars(self.net.state.count + 1)
            with self._current():
                compare_batches(self._replica, inputs, target, scalars)
            self._compared = True
        return super().step(inputs, target)

    def _given(self, inputs: Any, target: Any) -> dict[str, Any]:
        """What this rank reads; the rest may be None."""
        kinds = {SCHEDULE.read(name).kind for name in self._needs}
        reads_input, reads_target = "input" in kinds, "target" in kinds
        if (reads_input and inputs is None) or (reads_target and target is None):
            what = "inputs" if inputs is None and reads_input else "a target"
            raise ScheduleError(f"rank {dist.get_rank()} runs tasks that read {what}: pass it to step().")
        noise = self._noise()
        named = self._named_inputs(inputs) if reads_input else {}
        named |= self._named_targets(target) if reads_target else {}
        return self._cut(named) | noise if self._needs else {}

    def _run(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        self.residence.settle()
        self.worker.start({name: self._taken(given[name]) for name in self._needs}, scalars)
        task: Task | None = None
        start = time.monotonic()
        try:
            with self._current():
                for task, action in self._actions:  # noqa: B007 - the message names the task
                    action()
                self._mail.finish(self._limit)
        except RuntimeError as error:
            where = "the end of the step" if task is None else f'"{task.label}"'
            raise ScheduleError(
                f"rank {dist.get_rank()} (device {self.device}) gave up in {where}, {time.monotonic() - start:.1f} s "
                f"into the step: another rank ended or hangs ({first_line(error)})"
            ) from error
        losses = self.worker.losses()
        return self._loss(losses) if losses else None

    def _taken(self, value: Any) -> Any:
        return value.to(self.place) if isinstance(value, torch.Tensor) else value

    def _reducing(self, task: Task, action: Any) -> Any:
        """With replicas, a `STEP` first adds up its gradients over them."""
        if self.replicas == 1 or task.kind != "STEP":
            return action
        group = self.mesh["replica"].get_group()
        names = [name for name in task.reads if is_gradient(name)]
        divisor = self.replicas if self.lowered.mean else 1

        def run() -> None:
            gradients = [self.worker.values[name] for name in names]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat, group=group)
            flat /= divisor
            parts = flat.split([gradient.numel() for gradient in gradients])
            for name, gradient, part in zip(names, gradients, parts, strict=True):
                self.worker.values[name] = part.view(gradient.shape)
            action()

        return run


def default_mesh(devices: int) -> DeviceMesh:
    """Returns the mesh `("replica", "region")` of all ranks.

    Raises:
        ScheduleError: there is no process group, or its size is no multiple of the devices.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ScheduleError(
            "there is no process group: start with torchrun and call torch.distributed.init_process_group first."
        )
    world = dist.get_world_size()
    if world % devices:
        raise ScheduleError(
            f"{world} ranks cannot be shared by a schedule for {devices} devices: start a multiple of {devices}."
        )
    kind = device_type_of_backend()
    ranks = torch.arange(world).view(world // devices, devices)
    return DeviceMesh(kind, ranks, mesh_dim_names=("replica", "region"))
