"""Measures the numbers that the cost model needs: arithmetic, memory, the overhead of an operator, and the link.

All are medians of short runs in one thread; the link is that between two processes of this machine, over gloo. Where
there is a GPU, its speed is that of the same product over the CPU's.
"""

import dataclasses
import os
import socket
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import spawn

from altprop.ir.machine import Machine

_SIDE = 512
_ELEMENTS = 1 << 23
_LARGE = 1 << 20


def calibrate(link: bool = True) -> Machine:
    """Returns this machine's numbers.

    Args:
        link: whether to time the link too; it starts two processes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = _device()
    finally:
        torch.set_num_threads(threads)
    return dataclasses.replace(found, **_link()) if link else found


def _median(action: Callable[[], Any], repeats: int, inner: int = 1) -> float:
    """Median seconds of an action."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        for _ in range(inner):
            action()
        times.append((time.perf_counter() - start) / inner)
    return statistics.median(times[2:])


def _device() -> Machine:
    vector, one = torch.randn(_ELEMENTS), torch.zeros(1)
    out = torch.empty_like(vector)
    with torch.no_grad():
        product = _product()
        copied = _median(lambda: torch.add(vector, 1.0, out=out), 5)
        small = _median(lambda: torch.add(one, 1.0), 10, inner=500)
        speeds = {"cuda": product / _product("cuda")} if torch.cuda.is_available() else {}
    return Machine(flops=2 * _SIDE**3 / product, bandwidth=2 * vector.nbytes / copied, overhead=small, speeds=speeds)


def _product(kind: str = "cpu") -> float:
    """Seconds of a matrix product on a kind of device."""
    matrix = torch.randn(_SIDE, _SIDE).to(kind)
    made, inner = torch.empty_like(matrix), 1 if kind == "cpu" else 20

    def run() -> None:
        for _ in range(inner):
            torch.mm(matrix, matrix, out=made)
        torch.get_device_module(kind).synchronize()

    return _median(run, 10) / inner


def _link() -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    answers: SimpleQueue[dict[str, Any]] = context.SimpleQueue()
    spawn(_rank, (port, answers), nprocs=2)
    return answers.get()


def _rank(rank: int, port: int, answers: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    numbers = link_numbers()
    if rank == 0:
        answers.put(numbers)
    dist.destroy_process_group()


def link_numbers() -> dict[str, float]:
    """Times messages that go there and back between ranks 0 and 1; both have to call it."""
    small, large = _there_and_back(16, 100), _there_and_back(_LARGE, 20)
    bandwidth = 4 * (_LARGE - 16) / max(large - small, 1e-9)
    # A message's time is its latency and what either end spends on it.
    return {"link_bandwidth": bandwidth, "link_latency": small / 2, "transfer_overhead": small / 4}


def _there_and_back(count: int, repeats: int) -> float:
    data, rank = torch.zeros(count), dist.get_rank()

    def both_ways() -> None:
        for source in (0, 1):
            operation = dist.isend if rank == source else dist.irecv
            for work in dist.batch_isend_irecv([dist.P2POp(operation, data, 1 - rank)]):
                work.wait()

    return _median(both_ways, repeats) / 2
