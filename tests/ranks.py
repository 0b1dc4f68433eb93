"""What the ranks of `test_schedule_distributed.py` run: `python ranks.py SCENARIO FOLDER`, once for each rank.

Each rank writes what came out of it to `FOLDER/rank<N>.pt`. A rank is a process of its own, or a fork of the test's,
which has what was compiled before it.
"""

import copy
import os
import signal
import sys
import time
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import processor_time
import tiny
import torch
import torch.distributed as dist
from kills import die_after
from processes import HANG
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import altprop
from altprop.runtime.parallel.residents import slot_of

BATCH = 8
TIMEOUT = {"hang": 4, "kill": HANG}
BACKENDS = {"nccl": "nccl"}
WORDS: list[str] = []
"""What `main` was given."""


@cache
def kept(name: str, rule: str) -> altprop.LocalNet:
    """A compiled net that nobody trains."""
    with processor_time.shared():
        return make(name, rule)


def make(name: str, rule: str, devices: Any = None) -> altprop.LocalNet:
    """A compiled net; the same in every process."""
    torch.manual_seed(0)
    build, shape = tiny.MODELS[name]
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    inputs = (torch.zeros(shape),)
    return altprop.compile(build(), rule=rule, example_inputs=inputs, optimizer=optimizer, devices=devices)


def fresh(name: str, rule: str) -> altprop.LocalNet:
    """A net that has not trained yet: a copy of one that is compiled once a process, or before it forked."""
    return copy.deepcopy(kept(name, rule))


def batches(name: str, count: int = 3, size: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    """The same batches in every process."""
    generator = torch.Generator().manual_seed(1)
    _, shape = tiny.MODELS[name]
    return [
        (torch.randn(size, *shape[1:], generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for _ in range(count)
    ]


def held(net: altprop.LocalNet, names: Any) -> dict[str, Tensor]:
    """Values that live between steps, by name."""
    bindings = net.tensors().bindings
    return {name: bindings.get(slot_of(name)).detach().clone() for name in names if not name.startswith("constant:")}


def train(name: str, rule: str) -> dict[str, Any]:
    """Trains on two ranks."""
    net = fresh(name, rule)
    runtime = net.schedule(devices=2, microbatches=2, batch=BATCH).runtime("distributed")
    losses = [runtime.step(*batch) for batch in batches(name)]
    memory = sum(p.numel() for p in net.parameters() if p.device.type != "meta")
    return {"losses": losses, "held": held(net, runtime.held), "memory": memory}


def scenario_train() -> dict[str, Any]:
    """Several nets and rules, one after another; then ranks that do not agree."""
    found: dict[str, Any] = {
        f"{n} {r}": train(n, r) for n, r in (("residual", "reclra"), ("nine", "dfa"), ("nine", "bp"))
    }
    odd = fresh("nine", "dfa").schedule(devices=2, microbatches=1 + dist.get_rank(), batch=BATCH)
    found["mismatch"] = message_of(lambda: odd.runtime("distributed"))
    three = fresh("nine", "dfa").schedule(devices=3, batch=BATCH)
    found["size"] = message_of(lambda: three.runtime("distributed"))
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("stage",))
    found["mesh"] = message_of(lambda: fresh("nine", "dfa").schedule(devices=mesh, batch=BATCH))
    nothing = fresh("nine", "dfa").schedule(devices=2, batch=BATCH).runtime("distributed")
    found["nothing"] = message_of(lambda: nothing._given(None, None))
    return found


def scenario_nccl() -> dict[str, Any]:
    """One rank whose process group is NCCL's; it saves a checkpoint and loads it."""
    return _on_devices(["cuda:0"], WORDS[1])


def scenario_gpu_and_cpu() -> dict[str, Any]:
    """A rank on the CPU and one on the GPU, over gloo."""
    return _on_devices(["cpu", "cuda:0"])


def scenario_one_gpu() -> dict[str, Any]:
    """Two ranks that share a GPU, over gloo."""
    return _on_devices(["cuda:0", "cuda:0"])


def _on_devices(names: list[str], folder: str | None = None) -> dict[str, Any]:
    net = fresh("nine", "dfa")
    runtime = net.schedule(devices=names, microbatches=2, batch=BATCH).runtime("distributed")
    losses = []
    for batch in batches("nine"):
        loss = runtime.step(*batch)
        losses.append(None if loss is None else float(loss))
        if folder is not None:
            runtime.save(folder)
            runtime.resume(folder)
    return {"losses": losses, "held": held(net, runtime.held), "place": runtime.place.type}


def scenario_replicas() -> dict[str, Any]:
    """Two replicas of two regions; each sees one half of the samples."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "region"))
    net = make("nine", "dfa", devices=mesh)
    schedule = net.schedule(batch=BATCH // 2)
    assert schedule.programs.devices == ("cpu", "cpu")
    runtime = schedule.runtime("distributed")
    assert runtime.mesh is mesh
    half = slice(0, BATCH // 2) if dist.get_rank() < 2 else slice(BATCH // 2, BATCH)
    for inputs, target in batches("nine"):
        runtime.step(inputs[half], target[half])
    return {"held": held(net, runtime.held), "feedback": held(net, [n for n in runtime.held if "feedback" in n])}


def scenario_kill() -> dict[str, Any]:
    """The last rank is killed in its third step."""
    return _until_the_end(lambda: os.kill(os.getpid(), signal.SIGKILL))


def scenario_hang() -> dict[str, Any]:
    """The last rank hangs in its third step, until the test kills it."""
    return _until_the_end(lambda: time.sleep(HANG))


def scenario_resume() -> dict[str, Any]:
    """Trains up to twelve steps from the last checkpoint, and saves every second step.

    A rank that is named, with a step and a number of function calls, is killed so many calls behind that step.
    """
    victim, moment, calls = map(int, WORDS[3:] or (-1, 0, 0))
    net = fresh("nine", "reclra")
    runtime = net.schedule(devices=dist.get_world_size(), batch=BATCH).runtime("distributed")
    done = runtime.resume(WORDS[2])
    for index, batch in list(enumerate(batches("nine", 12), start=1))[done:]:
        runtime.step(*batch)
        if (victim, moment) == (dist.get_rank(), index):
            die_after(calls)
        if index % 2 == 0:
            runtime.save(WORDS[2])
    return {"held": held(net, runtime.held), "done": done}


@cache
def prepared() -> altprop.Schedule:
    """A schedule for three ranks."""
    return fresh("nine", "dfa").schedule(devices=3, batch=BATCH)


def meet() -> dist.Store:
    """Waits until all ranks are this far, however slow the machine is: short time limits begin here."""
    prepared()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, world, rank == 0, timeout=timedelta(seconds=HANG))
    store.set(f"ready {rank}", "")
    store.wait([f"ready {other}" for other in range(world)])
    return store


def _until_the_end(end: Any) -> dict[str, Any]:
    runtime = prepared().runtime("distributed")

    def steps() -> None:
        for index, batch in enumerate(batches("nine", 50)):
            if (index, dist.get_rank()) == (2, 2):
                end()
            runtime.step(*batch)

    return {"message": message_of(steps)}


def message_of(action: Any) -> str:
    """The message of the error that an action raises."""
    try:
        action()
    except altprop.ScheduleError as error:
        return str(error)
    return ""


def main(words: list[str], variables: dict[str, str]) -> None:
    """Runs one rank: a scenario, a folder, and words of the scenario."""
    os.environ.update(variables)
    WORDS[:] = words
    scenario, folder = words[0], Path(words[1])
    torch.set_num_threads(1)
    limit, backend = timedelta(seconds=TIMEOUT.get(scenario, HANG)), BACKENDS.get(scenario, "gloo")
    if scenario in TIMEOUT:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(backend, timeout=limit, store=meet(), rank=rank, world_size=world)
    else:
        dist.init_process_group(backend, timeout=limit)
    found = globals()[f"scenario_{scenario}"]()
    torch.save(found, folder / f"rank{dist.get_rank()}.pt")
    if scenario not in TIMEOUT:
        dist.barrier()
        dist.destroy_process_group()
    else:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:], {})
