"""The threads runtime: one worker thread a device, with mailboxes between them.

How values travel between devices is told in `lanes.py`. A worker that fails, or that waits longer than
`timeout` seconds for a value, ends the step on all devices with one sentence.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import Lowered, Task
from altprop.runtime.parallel.lanes import Parcel
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.one_process import LocalRuntime
from altprop.runtime.parallel.worker import Arrival, Worker

_POLL = 0.2


class ThreadsRuntime(LocalRuntime):
    """Runs the program of each device in a thread of its own, and on a GPU on a stream of its own.

    Args:
        lowered: the schedule and what its tasks run.
        net: tensors of the net.
        timeout: seconds that a device waits for a value before the step fails.
    """

    def __init__(self, lowered: Lowered, net: NetTensors, timeout: float = 60.0) -> None:
        self.timeout = timeout
        self._post = _Post(timeout)
        super().__init__(lowered, net, lambda device: _Mail(self, device), streams=True)
        self._pool = ThreadPoolExecutor(len(self.workers), thread_name_prefix="altprop-device")

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _work(self) -> None:
        self._post.open()
        threads = torch.get_num_threads()
        self._join([self._pool.submit(self._drive, worker, threads) for worker in self.workers])

    def _join(self, running: Sequence["Future[None]"]) -> None:
        """Waits for all; the first failure is the one that is raised."""
        errors = [error for future in running if (error := future.exception()) is not None]
        if errors:
            first = self._post.failure or errors[0]
            raise first

    def _drive(self, worker: Worker, threads: int) -> None:
        torch.set_num_threads(threads)
        lane = self.lanes[worker.device]
        running: Task | None = None
        try:
            lane.claim()
            with torch.no_grad(), lane.here():
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

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.failure: ScheduleError | None = None
        self._lock = threading.Lock()
        self._boxes: dict[tuple[str, int], queue.SimpleQueue[Parcel]] = {}

    def open(self) -> None:
        """Begins a step with empty mailboxes."""
        self.failure = None
        self._boxes = {}

    def box(self, name: str, device: int) -> "queue.SimpleQueue[Parcel]":
        with self._lock:
            return self._boxes.setdefault((name, device), queue.SimpleQueue())

    def fail(self, error: ScheduleError) -> None:
        with self._lock:
            self.failure = self.failure or error

    def check(self) -> None:
        if self.failure is not None:
            raise ScheduleError("another device failed.") from self.failure


class _Mail:
    def __init__(self, runtime: ThreadsRuntime, device: int) -> None:
        self.runtime, self.device = runtime, device
        self.post = runtime._post

    def send(self, transfers: Sequence[tuple[Task, torch.Tensor]]) -> None:
        for task, value in transfers:
            assert task.peer is not None
            lanes = self.runtime.lanes
            self.post.box(task.region, task.peer).put(Parcel(value, lanes[self.device], lanes[task.peer]))

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
                parcel = box.get(timeout=min(_POLL, self.post.timeout - waited))
            except queue.Empty:
                waited += _POLL
                self.post.check()
            else:
                return parcel.open()
        raise ScheduleError(
            f"device {self.device} waited {self.post.timeout:g} s for {self.task.region} from device "
            f"{self.task.peer}, which did not send it: it hangs, or is slower than timeout= allows."
        )
