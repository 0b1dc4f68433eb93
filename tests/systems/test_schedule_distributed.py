"""The distributed runtime: ranks equal the serial run, hold their own regions alone, and end with a sentence."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from processes import HANG

import altprop
from altprop.runtime.parallel.checkpoint import latest

SCRIPT = Path(ranks.__file__)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(scenario: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Runs a scenario by plain torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*command, str(SCRIPT), scenario, str(folder)], env=environment(), capture_output=True, text=True, timeout=HANG
    )
    assert not done.returncode, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(count)]


def launch(scenario: str, count: int, folder: Path, *more: str) -> list["subprocess.Popen[str]"]:
    """Starts the ranks one by one: torchrun would end them all as soon as one ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    command = [sys.executable, str(SCRIPT), scenario, str(folder), *more]
    return [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return torchrun("train", 2, tmp_path_factory.mktemp("train"))


def serial(name: str, rule: str, microbatches: int = 2) -> tuple[list[Any], altprop.LocalNet]:
    net = ranks.make(name, rule)
    runtime = net.schedule(devices=2, microbatches=microbatches, batch=ranks.BATCH).runtime("serial")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank has: with more, sums round otherwise
    try:
        return [runtime.step(*batch) for batch in ranks.batches(name)], net
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "rule"), [("residual", "reclra"), ("nine", "dfa"), ("nine", "bp")])
def test_ranks_are_bit_identical_with_serial(trained: list[dict[str, Any]], name: str, rule: str) -> None:
    losses, net = serial(name, rule)
    found = [rank[f"{name} {rule}"] for rank in trained]
    made = [rank["losses"] for rank in found if rank["losses"][0] is not None]
    assert len(made) == 1
    assert all(torch.equal(a, b) for a, b in zip(made[0], losses, strict=True))
    seen: set[str] = set()
    for rank in found:
        expected = ranks.held(net, rank["held"])
        assert not [key for key, value in rank["held"].items() if not torch.equal(value, expected[key])]
        seen |= rank["held"].keys()
    assert {f"parameter:{key}" for key, _ in net.model.named_parameters()} <= seen


def test_ranks_hold_their_own_regions_alone(trained: list[dict[str, Any]]) -> None:
    whole = sum(p.numel() for p in ranks.make("nine", "dfa").parameters())
    held = [rank["nine dfa"]["memory"] for rank in trained]
    assert sum(held) == whole
    assert max(held) < 0.7 * whole


def test_ranks_with_other_programs_are_refused(trained: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(trained):
        assert found["mismatch"].startswith(f"rank {rank} has program ")
        assert f"but rank {1 - rank} has " in found["mismatch"]
        assert found["mismatch"].endswith("start all ranks with the same model, rule, plan, schedule and versions.")


def test_ranks_that_do_not_fit_the_schedule(trained: list[dict[str, Any]]) -> None:
    assert {found["size"] for found in trained} == {
        "2 ranks cannot be shared by a schedule for 3 devices: start a multiple of 3."
    }


def test_mesh_with_other_dimensions_is_refused(trained: list[dict[str, Any]]) -> None:
    assert {found["mesh"] for found in trained} == {
        'the mesh has the dimensions (\'stage\',): make one with mesh_dim_names ("region",) or ("replica", "region").'
    }


def test_ranks_say_what_they_read(trained: list[dict[str, Any]]) -> None:
    assert trained[0]["nothing"] == "rank 0 runs tasks that read inputs: pass it to step()."
    assert trained[1]["nothing"] == "rank 1 runs tasks that read a target: pass it to step()."


def test_replicas_average_their_gradients(tmp_path: Path) -> None:
    """Two replicas of half a batch each, on a mesh that the net was compiled for, move parameters as one of the whole
    batch does.
    """
    found = torchrun("replicas", 4, tmp_path)
    _, net = serial("nine", "dfa", microbatches=1)
    for rank in found:
        torch.testing.assert_close(rank["held"], ranks.held(net, rank["held"]), rtol=1e-5, atol=1e-6)
    for one, other in ((0, 2), (1, 3)):
        assert found[one]["held"].keys() == found[other]["held"].keys()
        assert not [k for k, v in found[one]["held"].items() if not torch.equal(v, found[other]["held"][k])]


@pytest.mark.parametrize("scenario", ["kill", "hang"])
def test_rank_that_ends_or_hangs_ends_all(scenario: str, tmp_path: Path) -> None:
    """The others end while a rank that hangs still does, and long before the time limit where one was killed."""
    started = launch(scenario, 3, tmp_path)
    try:
        for rank, process in enumerate(started[:2]):
            process.wait(timeout=HANG)
            found = torch.load(tmp_path / f"rank{rank}.pt")
            assert found["message"].startswith(f"rank {rank} (device {rank}) gave up in ")
            assert "another rank ended or hangs" in found["message"]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_run_killed_again_and_again_resumes_bit_for_bit(tmp_path: Path) -> None:
    """A rank is killed behind a step or in a checkpoint, of two, then of three; three go on from the last whole
    checkpoint, then one.
    """
    kept = tmp_path / "checkpoints"
    for world, victim, step, calls in ((2, 1, 5, 300), (3, 0, 8, 1000)):
        before = latest(kept)
        started = launch("resume", world, tmp_path, str(kept), str(victim), str(step), str(calls))
        assert started[victim].wait(timeout=HANG) == -signal.SIGKILL
        for process in started:
            process.kill()
            process.communicate()
        assert latest(kept) != before
        assert not (tmp_path / "rank0.pt").exists()
    for process in launch("resume", 3, tmp_path, str(kept)):
        assert process.wait(timeout=HANG) == 0, process.communicate()[1]
        process.communicate()
    net = ranks.make("nine", "reclra")
    runtime = net.schedule(devices=1, batch=ranks.BATCH).runtime()
    for batch in ranks.batches("nine", 12):
        runtime.step(*batch)
    for rank in range(3):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert 0 < found["done"] < 12
        expected = ranks.held(net, found["held"])
        assert not [key for key, value in found["held"].items() if not torch.equal(value, expected[key])]
    alone = ranks.make("nine", "reclra")
    assert alone.schedule(devices=1, batch=ranks.BATCH).runtime().resume(kept) == 12
    state = net.state_dict()
    assert not [key for key, value in alone.state_dict().items() if not torch.equal(value, state[key])]


def test_there_must_be_a_process_group() -> None:
    with pytest.raises(altprop.ScheduleError, match="there is no process group: start with torchrun"):
        ranks.make("mlp", "dfa").schedule(devices=2, batch=4).runtime("distributed")
