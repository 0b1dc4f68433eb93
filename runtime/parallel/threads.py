"""The threads runtime: one worker thread a device, with mailboxes between them.

A device of another kind than the sender's gets a copy there. A worker that fails, or that waits longer than
`timeout` seconds for a value, ends the step on all devices with one sentence.
"""

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import Lowered, Task
from altprop.runtime.parallel.base import NetTensors, Runtime
from altprop.runtime.parallel.worker import Arrival, Worker

_POLL = 0.2


class ThreadsRuntime(Runtime):
    """Runs the program of each device in a thread of its own.

    Args:
        lowered: the schedule and what its tasks run.
        net: tensors of the net.
        timeout: seconds that a device waits for a value before the step fails.
    """

    def __init__(self, lowered: Lowered, net: NetTensors, timeout: float = 60.0) -> None:
        super().__init__(lowered, net)
        self.timeout = timeout
        count = len(self.schedule.programs)
        self._post = _Post(self.schedule.devices, timeout)
        self.workers = [Worker(lowered, d, net.bindings, _Mail(self._post, d)) for d in range(count)]
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="altprop-device")

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _run(self, given: Mapping[str, Any], scalars: Mapping[str, float]) -> torch.Tensor | None:
        self._post.open()
        for worker in self.workers:
            worker.start({name: given[name] for name in worker.inputs()}, scalars)
        threads = torch.get_num_threads()
        running = [self._pool.submit(self._work, worker, threads) for worker in self.workers]
        self._join(running)
        losses = [loss for worker in self.workers for loss in worker.losses()]
        return self._loss(losses)

    def _join(self, running: Sequence["Future[None]"]) -> None:
        """Waits for all; the first failure is the one that is raised."""
        errors = [error for future in running if (error := future.exception()) is not None]
        if errors:
            first = self._post.failure or errors[0]
            raise first

    def _work(self, worker: Worker, threads: int) -> None:
        torch.set_num_threads(threads)
        running: Task | None = None
        try:
            with torch.no_grad():
                for task, action in worker.actions:
                    running = task
                    self._post.check()
                    action()
        except ScheduleError as error:
            self._post.fail(error)
            raise
        except Exception as error:
            where = "" if running is None else f' in "{running.label}"'
            wrapped = ScheduleError(f"device {worker.device} failed{where}: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            self._post.fail(wrapped)
            raise wrapped from error


class _Post:
    """The mailboxes of all devices, and whether the step has failed."""

    def __init__(self, devices: Sequence[str], timeout: float) -> None:
        self.devices, self.timeout = devices, timeout
        self.failure: ScheduleError | None = None
        self._lock = threading.Lock()
        self._boxes: dict[tuple[str, int], queue.SimpleQueue[torch.Tensor]] = {}

    def open(self) -> None:
        """Begins a step with empty mailboxes."""
        self.failure = None
        self._boxes = {}

    def box(self, name: str, device: int) -> "queue.SimpleQueue[torch.Tensor]":
        with self._lock:
            return self._boxes.setdefault((name, device), queue.SimpleQueue())

    def fail(self, error: ScheduleError) -> None:
        with self._lock:
            self.failure = self.failure or error

    def check(self) -> None:
        if self.failure is not None:
            raise ScheduleError("another device failed.") from self.failure


class _Mail:
    def __init__(self, post: _Post, device: int) -> None:
        self.post, self.device = post, device

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        for task, value in transfers:
            assert task.peer is not None
            target = torch.device(self.post.devices[task.peer])
            moved = value.to(target) if target.type not in ("cpu", value.device.type) else value
            self.post.box(task.region, task.peer).put(moved)

    def receive(self, tasks: Sequence[Task]) -> Sequence[Arrival]:
        return [_Arrival(self.post, task, self.device) for task in tasks]


class _Arrival:
    def __init__(self, post: _Post, task: Task, device: int) -> None:
        self.post, self.task, self.device = post, task, device

    def wait(self) -> torch.Tensor:
        box = self.post.box(self.task.region, self.device)
        waited = 0.0
        while waited < self.post.timeout:
            try:
                return box.get(timeout=min(_POLL, self.post.timeout - waited))
            except queue.Empty:
                waited += _POLL
                self.post.check()
        raise ScheduleError(
            f"device {self.device} waited {self.post.timeout:g} s for {self.task.region} from device "
            f"{self.task.peer}, which did not send it: it hangs, or is slower than timeout= allows."
        )
