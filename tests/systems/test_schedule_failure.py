"""Runs that are killed: at many random moments, steps and half-written checkpoints alike."""

import copy
import os
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from schedules import BATCH, batches, compiled

import altprop

STEPS, KILLS = 25, 8


def prepare(devices: int, runtime: str = "serial") -> tuple[altprop.LocalNet, Any]:
    """A net that has not trained yet, and what trains it."""
    net = copy.deepcopy(compiled("nine", "reclra"))
    return net, net.schedule(devices=devices, batch=BATCH).runtime(runtime)


def train(running: Any, folder: Path) -> None:
    """Goes on from the last checkpoint to the last step, with a checkpoint behind every step."""
    for batch in batches("nine", STEPS)[running.resume(folder) :]:
        running.step(*batch)
        running.save(folder)


def start(running: Any, folder: Path) -> int:
    """Trains in a child of this process, whose own net stays as it is; returns the child's number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of a fork beside threads
        child = os.fork()
    if not child:
        status = 1
        try:
            train(running, folder)
            status = 0
        finally:
            os._exit(status)
    return child


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """However often a run is killed, it ends with the weights of one that was not, bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a child has no others
    whole, undisturbed = prepare(1)
    begin = time.monotonic()
    train(undisturbed, tmp_path / "whole")
    length = time.monotonic() - begin
    ready = [prepare(devices)[1] for devices in (1, 2, 3)]
    generator, kept, killed = random.Random(0), tmp_path / "killed", 0
    for attempt in range(KILLS):
        child = start(ready[attempt % 3], kept)
        time.sleep(length * 0.2 * generator.random())
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert killed > KILLS // 2
    assert os.waitpid(start(ready[1], kept), 0)[1] == 0
    net, last = prepare(3, "threads")
    assert last.resume(kept) == STEPS
    expected, found = whole.state_dict(), net.state_dict()
    assert not [key for key, value in expected.items() if not torch.equal(value, found[key])]
    last.close()
    torch.set_num_threads(threads)
