"""Ranks that went wrong once, each by its number: those that begin differently, and saves that fail."""

import multiprocessing
import os
import re
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from processes import HANG

import altprop

OTHERS: dict[str, dict[str, Any]] = {
    "drawn": {"draw": 10},
    "rate": {"lr": 0.2},
    "seed": {"seed": 1},
    "plan": {"rule": "dfa(scale=2)"},
}
"""How rank 1 differs from rank 0."""


def make(rule: str = "dfa", lr: float = 0.1, draw: int = 0, seed: int = 0) -> altprop.LocalNet:
    torch.manual_seed(draw)
    model = torch.nn.Sequential(torch.nn.Linear(7, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4))
    optimizer = altprop.optim.SGD(lr=lr, momentum=0.9, fused=False)
    return altprop.compile(model, rule=rule, example_inputs=(torch.zeros(3, 7),), optimizer=optimizer, seed=seed)


def train(net: altprop.LocalNet, devices: int, kind: str) -> Any:
    runtime = net.schedule(devices=devices, batch=ranks.BATCH).runtime(kind)
    for batch in ranks.batches("mlp"):
        runtime.step(*batch)
    return runtime


def trained(net: altprop.LocalNet, devices: int) -> dict[str, torch.Tensor]:
    """What a rank holds that trained."""
    return ranks.held(net, train(net, devices, "distributed").held)


def as_a_rank(rank: int, variables: dict[str, str], nets: dict[str, list[altprop.LocalNet]], folder: Path) -> None:
    """Tries everything, and writes what came out."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, Any] = {f"{n} devices": trained(nets[f"drawn {n}"][rank], n) for n in (1, 2)}
    for name in ("rate", "seed", "plan"):
        schedule = nets[name][rank].schedule(devices=2, batch=ranks.BATCH)
        found[name] = ranks.message_of(lambda schedule=schedule: schedule.runtime("distributed"))
    runtime = nets["same"][0].schedule(devices=2, batch=ranks.BATCH).runtime("distributed")
    inputs, target = ranks.batches("mlp")[rank]
    found["order"] = ranks.message_of(lambda: runtime.step(inputs, target))
    found["unread"] = runtime.step(None if rank else inputs, target if rank else None) is not None
    runtime.save(folder)
    found["unwritable"] = ranks.message_of(lambda: runtime.save(folder / "file"))
    if not rank:
        found["dead"] = ranks.message_of(lambda: runtime.save(folder))
    torch.save(found, folder / f"rank{rank}.pt")
    os._exit(0)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What two ranks found that begin differently, and the folder of their checkpoint."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "file").touch()
    nets = {name: [make(), make(**other)] for name, other in OTHERS.items()} | {"same": [make()]}
    nets |= {"drawn 1": nets["drawn"], "drawn 2": [make(), make(draw=5)]}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    context: Any = multiprocessing.get_context("fork")
    processes = [context.Process(target=as_a_rank, args=(rank, variables, nets, folder)) for rank in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of a fork beside threads
        for process in processes:
            process.start()
    for process in processes:
        process.join(HANG)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)], folder


@pytest.mark.parametrize("devices", [1, 2])
def test_defect_20_ranks_begin_with_the_state_of_the_first(started: Any, devices: int) -> None:
    net = make()
    train(net, 1, "serial")
    for found in started[0]:
        mine = found[f"{devices} devices"]
        assert mine
        torch.testing.assert_close(mine, ranks.held(net, mine), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rate", r"rank 1 has another optimizer than rank 0, SGD\(lr=0.2.* and SGD\(lr=0.1.*: start all ranks with"),
        ("seed", "rank 1 has another seed of feedback than rank 0, 1 and 0: start all ranks with the same"),
        ("plan", "rank 1 has another plan than rank 0"),
        ("order", "rank 1 was given other inputs than rank 0 in the first step: .* the same batches in the same order"),
    ],
)
def test_defect_20_ranks_that_differ_are_told(started: Any, what: str, message: str) -> None:
    assert re.match(message, started[0][1][what], re.DOTALL)
    assert started[0][0][what].startswith("rank 0 ")
    assert [found["unread"] for found in started[0]] == [False, True]


def test_defect_26_a_save_with_a_dead_rank_or_into_a_file_is_told(started: Any) -> None:
    found, folder = started
    assert found[0]["unwritable"] == found[1]["unwritable"]
    assert re.match(
        r"could not save a checkpoint: rank 0: \S+/file cannot be written: .*; earlier checkpoints are as they were",
        found[0]["unwritable"],
    )
    assert re.match("rank 0 could not save a checkpoint with the other ranks, of which one ended", found[0]["dead"])
    assert [path.name for path in folder.glob("*step*")] == ["step-00000001"]
