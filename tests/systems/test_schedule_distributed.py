"""The distributed runtime: ranks equal the serial run, hold their own regions alone, and end with a sentence."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from processes import HANG

import altprop
from altprop.runtime.parallel.sharded_checkpoint import latest

SCRIPT = Path(ranks.__file__)
TRAINED = [("residual", "reclra"), ("nine", "dfa"), ("nine", "bp")]
BOTH = ["fork", pytest.param("torchrun", marks=pytest.mark.full)]
ONE_BY_ONE = ["fork", pytest.param("spawn", marks=pytest.mark.full)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(scenario: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Runs a scenario by plain torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*command, str(SCRIPT), scenario, str(folder)], env=environment(), capture_output=True, text=True, timeout=HANG
    )
    assert not done.returncode, done.stderr[-3000:]
    return results(folder, count)


def results(folder: Path, count: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(count)]


def launch(how: str, scenario: str, count: int, folder: Path, *more: str) -> list[BaseProcess]:
    """Starts the ranks one by one: torchrun would end them all as soon as one ends.

    They are forks of this process, which share what it compiled, or processes that begin with nothing.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    make: Any = multiprocessing.get_context(how).Process
    started = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of a fork beside threads
        for rank in range(count):
            variables = {**shared, "RANK": str(rank)}
            started.append(make(target=ranks.main, args=([scenario, str(folder), *more], variables)))
            started[-1].start()
    return started


def ended(process: BaseProcess) -> int | None:
    """What a process ended with, minus the signal where it was killed; None if it hangs."""
    process.join(HANG)
    return process.exitcode


def end(started: list[BaseProcess]) -> None:
    """Kills those that are left, and waits for all."""
    for process in started:
        process.kill()
        process.join()


def ran(how: str, scenario: str, count: int, folder: Path) -> list[dict[str, Any]]:
    """Runs a scenario to its end."""
    if how == "torchrun":
        return torchrun(scenario, count, folder)
    started = launch(how, scenario, count, folder)
    try:
        assert [ended(process) for process in started] == [0] * count
        return results(folder, count)
    finally:
        end(started)


@pytest.fixture(scope="module", params=BOTH)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    for name, rule in TRAINED:
        ranks.kept(name, rule)
    return ran(request.param, "train", 2, tmp_path_factory.mktemp("train"))


def serial(name: str, rule: str, microbatches: int = 2) -> tuple[list[Any], altprop.LocalNet]:
    net = ranks.fresh(name, rule)
    runtime = net.schedule(devices=2, microbatches=microbatches, batch=ranks.BATCH).runtime("serial")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank has: with more, sums round otherwise
    try:
        return [runtime.step(*batch) for batch in ranks.batches(name)], net
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "rule"), TRAINED)
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
    whole = sum(p.numel() for p in ranks.kept("nine", "dfa").parameters())
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


@pytest.mark.parametrize("how", BOTH)
def test_replicas_average_their_gradients(how: str, tmp_path: Path) -> None:
    """Two replicas of half a batch each, on a mesh that the net was compiled for, move parameters as one of the whole
    batch does.
    """
    found = ran(how, "replicas", 4, tmp_path)
    _, net = serial("nine", "dfa", microbatches=1)
    for rank in found:
        torch.testing.assert_close(rank["held"], ranks.held(net, rank["held"]), rtol=1e-5, atol=1e-6)
    for one, other in ((0, 2), (1, 3)):
        assert found[one]["held"].keys() == found[other]["held"].keys()
        assert not [k for k, v in found[one]["held"].items() if not torch.equal(v, found[other]["held"][k])]


@pytest.mark.parametrize("how", ONE_BY_ONE)
@pytest.mark.parametrize("scenario", ["kill", "hang"])
def test_rank_that_ends_or_hangs_ends_all(scenario: str, how: str, tmp_path: Path) -> None:
    """The others end while a rank that hangs still does, and long before the time limit where one was killed."""
    ranks.kept("nine", "dfa")
    started = launch(how, scenario, 3, tmp_path)
    try:
        for rank, process in enumerate(started[:2]):
            assert ended(process) == 0
            found = torch.load(tmp_path / f"rank{rank}.pt")
            assert found["message"].startswith(f"rank {rank} (device {rank}) gave up in ")
            assert "another rank ended or hangs" in found["message"]
        assert started[2].is_alive() == (scenario == "hang")
    finally:
        end(started)


@pytest.mark.parametrize("how", ONE_BY_ONE)
def test_run_killed_again_and_again_resumes_bit_for_bit(how: str, tmp_path: Path) -> None:
    """A rank is killed behind a step or in a checkpoint, of two, then of three; three go on from the last whole
    checkpoint, then one.
    """
    ranks.kept("nine", "reclra")
    kept = tmp_path / "checkpoints"
    for world, victim, step, calls in ((2, 1, 5, 300), (3, 0, 8, 1000)):
        before = latest(kept)
        started = launch(how, "resume", world, tmp_path, str(kept), str(victim), str(step), str(calls))
        assert ended(started[victim]) == -signal.SIGKILL
        end(started)
        assert latest(kept) != before
        assert not (tmp_path / "rank0.pt").exists()
    started = launch(how, "resume", 3, tmp_path, str(kept))
    assert [ended(process) for process in started] == [0, 0, 0]
    net = ranks.fresh("nine", "reclra")
    runtime = net.schedule(devices=1, batch=ranks.BATCH).runtime()
    for batch in ranks.batches("nine", 12):
        runtime.step(*batch)
    for rank in range(3):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert 0 < found["done"] < 12
        expected = ranks.held(net, found["held"])
        assert not [key for key, value in found["held"].items() if not torch.equal(value, expected[key])]
    alone = ranks.fresh("nine", "reclra")
    assert alone.schedule(devices=1, batch=ranks.BATCH).runtime().resume(kept) == 12
    state = net.state_dict()
    assert not [key for key, value in alone.state_dict().items() if not torch.equal(value, state[key])]


def test_there_must_be_a_process_group() -> None:
    with pytest.raises(altprop.ScheduleError, match="there is no process group: start with torchrun"):
        ranks.fresh("mlp", "dfa").schedule(devices=2, batch=4).runtime("distributed")
