"""How the ranks of a distributed run exchange values: which device a rank has, and batched point-to-point operations.

A value travels from GPU to GPU where both ends have one and the process group has a backend for them, such as NCCL;
otherwise by the host's memory. Shapes and strides stand in the program and are never sent.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from altprop.ir.devices import kind_of, module_of, present_device
from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, Task, ValueForm
from altprop.runtime.parallel.wire import empty, pack, unpack
from altprop.runtime.parallel.worker import Arrival

CPU = torch.device("cpu")
_POLL = 1e-4


def device_of_rank(name: str, own: torch.device) -> torch.device:
    """Returns the device of this rank, of the kind that the schedule names.

    It is the one that the net is on; if that is of another kind, the one with the number `LOCAL_RANK`; if there are not
    so many, the very one that the schedule names.

    Args:
        name: name of the device in the schedule.
        own: the device that the net is on.

    Raises:
        ScheduleError: this machine has no such device.
    """
    kind = kind_of(name)
    if own.type == kind:
        return own
    local = os.environ.get("LOCAL_RANK", "")
    with contextlib.suppress(ScheduleError):
        return present_device(f"{kind}:{local}" if local and kind != "cpu" else name)
    return present_device(name)


def device_type_of_backend() -> str:
    """Returns the kind of device that collectives of the default process group need: "cuda" with NCCL alone."""
    kinds = _backends(None)
    return "cpu" if "cpu" in kinds else next(iter(kinds), "cpu")


def _backends(group: Any) -> dict[str, str]:
    """Backend of each kind of device."""
    pairs = (one.partition(":") for one in dist.get_backend_config(group).split(","))
    return {kind: backend for kind, _, backend in pairs}


class Transport:
    """The mail of one rank: point-to-point operations in batches.

    Args:
        schedule: the schedule.
        number: number of this rank's device in it.
        device: this rank's device.
        ranks: global rank of each device.
        group: process group of the ranks.

    Raises:
        ScheduleError: the process group cannot carry values between these devices.
    """

    def __init__(
        self, schedule: DevicePrograms, number: int, device: torch.device, ranks: Sequence[int], group: Any = None
    ) -> None:
        self.schedule, self.device, self.ranks, self.group = schedule, device, ranks, group
        self._kinds = [kind_of(name) for name in schedule.devices]
        self._own = self._kinds[number]
        self._backends = _backends(group)
        self._sent: list[tuple[Any, Any]] = []
        self._check()

    def _check(self) -> None:
        for peer, _ in enumerate(self._kinds):
            kind = self._place(peer).type
            if kind not in self._backends:
                raise ScheduleError(
                    f"rank {dist.get_rank()} is on {self.device} and the process group carries tensors on "
                    f'{", ".join(self._backends)} alone: call init_process_group with "cpu:gloo,cuda:nccl".'
                )

    def _place(self, peer: int | None) -> torch.device:
        """Where values stand that go to or come from a peer."""
        assert peer is not None
        same = self._own == self._kinds[peer]
        carried = self._backends.get(self._own, "gloo") != "gloo"
        return self.device if same and carried and self._own != "cpu" else CPU

    def _start(self, operation: Any, tasks: Sequence[Task], tensors: Sequence[torch.Tensor]) -> list[Any]:
        peers = [self.ranks[task.peer] for task in tasks if task.peer is not None]
        ops = [dist.P2POp(operation, data, peer, self.group) for data, peer in zip(tensors, peers, strict=True)]
        works = dist.batch_isend_irecv(ops)
        # One work may stand for the whole batch.
        return works if len(works) == len(ops) else works * len(ops)

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        """Sends some values; the tensors live until they have left."""
        for tasks, values in _by_place(transfers, lambda pair: self._place(pair[0].peer)):
            place = self._place(tasks[0].peer)
            packed = [pack(v, self.schedule.form(t.region)).to(place) for t, v in zip(tasks, values, strict=True)]
            self._sent += zip(self._start(dist.isend, tasks, packed), packed, strict=True)

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        """Announces that some values are expected."""
        found: dict[str, Arrival] = {}
        for group, _ in _by_place([(task, None) for task in tasks], lambda pair: self._place(pair[0].peer)):
            forms = [self.schedule.form(task.region) for task in group]
            buffers = [empty(form, self._place(group[0].peer)) for form in forms]
            works = self._start(dist.irecv, group, buffers)
            arrivals = [_Arrival(work, b, f, self.device) for work, b, f in zip(works, buffers, forms, strict=True)]
            found |= {task.region: arrival for task, arrival in zip(group, arrivals, strict=True)}
        return [found[task.region] for task in tasks]

    def finish(self, limit: timedelta) -> None:
        """Waits until all that was sent has left, and until the device has done its part of the step.

        Args:
            limit: how long the device may take; the works know theirs.

        Raises:
            RuntimeError: a peer ended or hangs.
        """
        for work, _ in self._sent:
            work.wait()
        self._sent.clear()
        if self.device.type != "cpu":
            _await(self.device, limit)


def _by_place(pairs: Sequence[tuple[Task, Any]], place: Any) -> list[tuple[list[Task], list[Any]]]:
    """Groups transfers by where they stand; their order stays within each group."""
    groups: dict[torch.device, list[tuple[Task, Any]]] = {}
    for pair in pairs:
        groups.setdefault(place(pair), []).append(pair)
    return [([task for task, _ in found], [value for _, value in found]) for found in groups.values()]


def _await(device: torch.device, limit: timedelta) -> None:
    """Waits for a device's stream without end only in appearance: NCCL's operations hang there when a peer is gone."""
    event = module_of(device).current_stream(device).record_event()
    end = time.monotonic() + limit.total_seconds()
    while not event.query():
        if time.monotonic() > end:
            raise RuntimeError(f"{device} was not done after {limit.total_seconds():g} s")
        time.sleep(_POLL)


class _Arrival:
    def __init__(self, work: Any, data: torch.Tensor, form: ValueForm, device: torch.device) -> None:
        self.work, self.data, self.form, self.device = work, data, form, device

    def wait(self) -> torch.Tensor:
        self.work.wait()
        return unpack(self.data.to(self.device), self.form)
