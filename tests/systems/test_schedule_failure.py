"""Runs that are killed: at many moments, in steps and half-written checkpoints alike."""

import copy
import random
import signal
from pathlib import Path
from typing import Any

import torch
from kills import count_calls, die_after, in_child
from made_schedules import BATCH, batches, compiled

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


def test_defect_43_killed_at_random_moments(tmp_path: Path) -> None:
    """However often a run is killed, it ends with the weights of one that was not, bit for bit."""
    whole, undisturbed = prepare(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a child has
    calls = count_calls(lambda: train(undisturbed, tmp_path / "whole"))
    torch.set_num_threads(threads)
    ready = [prepare(devices)[1] for devices in (1, 2, 3)]
    generator, kept = random.Random(0), tmp_path / "killed"

    def train_and_die(running: Any, moment: int) -> None:
        die_after(moment)
        train(running, kept)

    for attempt in range(KILLS):
        moment = int(calls * 0.2 * generator.random())
        assert (
            in_child(lambda attempt=attempt, moment=moment: train_and_die(ready[attempt % 3], moment))
            == -signal.SIGKILL
        )
    assert not in_child(lambda: train(ready[1], kept))
    net, last = prepare(3, "threads")
    assert last.resume(kept) == STEPS
    expected, found = whole.state_dict(), net.state_dict()
    assert not [key for key, value in expected.items() if not torch.equal(value, found[key])]
    last.close()
