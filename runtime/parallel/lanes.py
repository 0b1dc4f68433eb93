"""Lanes: where the programs of a schedule run in one process, and how values get from lane to lane.

A *lane* is a device and, on a GPU, a stream of its own; two lanes may share a GPU. The host hands operators to a stream
and goes on, so a value that is "made" may not be there yet. *Events* keep the order: one is recorded behind the task
that makes a value, and the stream of whoever reads it waits for that event, while the host does not. Only a lane on the
CPU makes the host wait.

Between devices a value is copied by a second stream, the *porter*, beside the work of both lanes. Memory that another
stream reads is marked for the allocator (`record_stream`), so that `FREE` may drop a value that is still being read.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from altprop.ir.devices import module_of, present_device


class Lane:
    """A device and, where it has streams, a stream for work and one for copies.

    Args:
        device: the device.
        own: whether to work on streams of its own; else the lane is wherever its caller is, who waits for copies.
    """

    def __init__(self, device: torch.device, own: bool = True) -> None:
        self.device = device
        self.streams = streams_of(device) if own else None
        self.stream: Any = None if self.streams is None else self.streams.Stream(device=device)
        self.porter: Any = None if self.streams is None else self.streams.Stream(device=device)

    def here(self) -> contextlib.AbstractContextManager[Any]:
        """What is called inside runs on this lane; programs take their kind of device's current one for theirs."""
        if self.streams is not None:
            return self.streams.stream(self.stream)
        return contextlib.nullcontext() if self.device.type == "cpu" else module_of(self.device).device(self.device)

    def claim(self) -> None:
        """Makes the lane's GPU the present one of a thread, which has none until it says so."""
        if self.device.type != "cpu":
            module_of(self.device).set_device(self.device)

    def carrying(self) -> contextlib.AbstractContextManager[Any]:
        """Copies that are called inside run beside this lane's work."""
        return contextlib.nullcontext() if self.streams is None else self.streams.stream(self.porter)

    def mark(self) -> Any:
        """Records an event behind all that was called here so far; None where the host has waited for it."""
        return None if self.stream is None else self.stream.record_event()

    def begin(self) -> None:
        """Makes the lane wait for what the caller's stream has been given."""
        if self.streams is not None:
            self.stream.wait_stream(self.streams.current_stream(self.device))

    def end(self) -> None:
        """Makes the caller's stream wait for what this lane has been given."""
        if self.streams is not None:
            self.streams.current_stream(self.device).wait_stream(self.stream)

    def take(self, value: Any) -> Any:
        """Brings a value of the caller to this lane; call it between `begin` and `end`."""
        if not isinstance(value, torch.Tensor):
            return value
        # The host may go on where it has nothing that a caller could write into before it is read.
        behind = self.streams is not None and not value.is_pinned()
        with self.here():
            keep(value, self)
            return value.to(self.device, non_blocking=behind)

    def finish(self) -> None:
        """Lets the host wait until everything on this lane's device is done."""
        if self.device.type != "cpu":
            module_of(self.device).synchronize(self.device)


class Parcel:
    """A value on its way from lane to lane; the sender makes it and the receiver opens it.

    Args:
        value: made by the source lane, which does not change it any more.
        source: where it was made.
        target: where it is wanted.
    """

    def __init__(self, value: torch.Tensor, source: Lane, target: Lane) -> None:
        self.target = target
        made = source.mark()
        if source.device == target.device:
            self.value, self.there = value, made
        else:
            self.value, self.there = _carried(value, made, source, target)

    def open(self) -> torch.Tensor:
        """Returns the value; what the target's lane is given from now on finds it there."""
        if self.there is not None and self.target.stream is not None:
            self.target.stream.wait_event(self.there)
            keep(self.value, self.target)
        elif self.there is not None:
            self.there.synchronize()
        return self.value


def _carried(value: torch.Tensor, made: Any, source: Lane, target: Lane) -> tuple[torch.Tensor, Any]:
    """Copies a value to another device; returns the copy, and the event behind it."""
    with source.carrying(), target.carrying():
        if source.porter is not None:
            source.porter.wait_event(made)
            record(value, source.porter)
        copied = landing(value, target)
        copied.copy_(value, non_blocking=True)
        if source.porter is not None and target.porter is not None:
            target.porter.wait_event(source.porter.record_event())
        porter = source.porter if target.porter is None else target.porter
        return copied, porter.record_event()


def keep(value: torch.Tensor, lane: Lane) -> None:
    """Tells the allocator that a lane reads a value, whose memory is then not used anew before it has."""
    if lane.stream is not None and value.device == lane.device:
        record(value, lane.stream)


def record(value: torch.Tensor, stream: Any) -> None:
    """Tells the allocator that a stream reads a value."""
    value.record_stream(stream)


def landing(value: torch.Tensor, target: Lane) -> torch.Tensor:
    """Returns memory for a copy; on the host it is pinned, since only such is written while the host goes on."""
    return torch.empty_like(value, device=target.device, pin_memory=target.porter is None)


def streams_of(device: torch.device) -> Any:
    """Torch's module for the streams of a device, or None where the host does the work itself."""
    return None if device.type == "cpu" else module_of(device)


def make_lanes(names: Sequence[str], own: bool = True) -> list[Lane]:
    """Returns a lane for each device of a schedule.

    Args:
        names: names of the devices.
        own: whether lanes work on streams of their own.

    Raises:
        ScheduleError: a device is not there.
    """
    devices = [present_device(name) for name in names]
    return [Lane(device, own) for device in devices]


@contextlib.contextmanager
def step_of(lanes: Sequence[Lane]) -> Iterator[None]:
    """Everything that the lanes do inside stands behind what the caller did before, and before what it does next."""
    for lane in lanes:
        lane.begin()
    try:
        yield
    finally:
        for lane in lanes:
            lane.end()
