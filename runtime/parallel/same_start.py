"""Ranks begin as one: with one state, the first rank's, the same settings, and the same first batch in each replica.

A model that nobody seeded differs from process to process. So before the first step every rank takes over what the
first one has, as torch's DistributedDataParallel does; what cannot be taken over is compared.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import DevicePrograms, is_owned
from altprop.ir.torch_private import pytree
from altprop.ir.values import SCHEDULE
from altprop.runtime.parallel.agree import rank, share, tell
from altprop.runtime.parallel.net_tensors import NetTensors
from altprop.runtime.parallel.residents import slot_of
from altprop.runtime.parallel.transport import device_type_of_backend

_SHARE, _COMPARE = "share the state of the first rank", "compare settings"


def compare_settings(net: NetTensors, schedule: DevicePrograms) -> None:
    """Compares what makes steps differ though programs are the same; all ranks call it.

    Raises:
        ScheduleError: names the first setting that differs, and the ranks.
    """
    constants = [name for name in sorted(schedule.forms) if SCHEDULE.read(name).kind == "constant"]
    mine = {
        "optimizer": repr(net.optimizer),
        "seed of noise": str(net.noise.seed),
        **net.settings,
        **{name.replace(":", " "): _digest(net.bindings.get(slot_of(name))) for name in constants},
    }
    for other, found in enumerate(tell(mine, _COMPARE)):
        for name in sorted(mine.keys() | found.keys()):
            if mine.get(name) != found.get(name):
                raise ScheduleError(
                    f"rank {rank()} has another {name} than rank {other}{_values(mine.get(name), found.get(name))}: "
                    "start all ranks with the same model, rule, plan, seed and optimizer."
                )


def _values(mine: str | None, other: str | None) -> str:
    short = mine is not None and other is not None and len(mine) + len(other) < 500
    return f", {mine} and {other}" if short else ""


def share_state(net: NetTensors, schedule: DevicePrograms) -> None:
    """Gives all ranks the parameters, buffers, feedback and optimizer state of the first one; all ranks call it.

    What a rank gave up stays so, and comes from the first rank that has it.

    Raises:
        ScheduleError: a rank ended or hangs.
    """
    names = [name for name in sorted(schedule.forms) if is_owned(name)]
    tensors = {name: net.bindings.get(slot_of(name)).detach() for name in names}
    told = tell(({n for n, t in tensors.items() if not t.is_meta}, net.state.count, net.noise.count), _SHARE)
    net.state.count, net.noise.count = told[0][1], told[0][2]
    kind = torch.device(device_type_of_backend())
    for name, tensor in tensors.items():
        source = next((number for number, (has, _, _) in enumerate(told) if name in has), None)
        if source is None:
            continue
        plain = torch.empty_like(tensor, device=kind) if tensor.is_meta else tensor.to(kind)
        plain = plain.contiguous().reshape(-1)
        if plain.numel():
            share(plain.view(torch.uint8), source, _SHARE)
        if rank() != source and not tensor.is_meta:
            with torch.no_grad():
                tensor.copy_(plain.view(tensor.shape))


def compare_batches(replica: int, inputs: Any, target: Any, scalars: Mapping[str, float]) -> None:
    """Compares the batch of the first step among the ranks of a replica, and the rates among all; all ranks call it.

    Args:
        replica: which replica this rank is of.
        inputs: what it was given as inputs; None is taken for what it does not read.
        target: likewise.
        scalars: numbers of the optimizer for the step.

    Raises:
        ScheduleError: they differ.
    """
    mine = {"inputs": _digest(inputs), "target": _digest(target)}
    for other, (one, found, rates) in enumerate(tell((replica, mine, dict(scalars)), "compare the first batch")):
        if rates != scalars:
            raise ScheduleError(
                f"rank {rank()} has another rate than rank {other}, {dict(scalars)} and {rates}: set the same on all."
            )
        for name in mine if one == replica else ():
            if "" not in (mine[name], found[name]) and mine[name] != found[name]:
                raise ScheduleError(
                    f"rank {rank()} was given other {name} than rank {other} in the first step: the ranks of one "
                    "replica run parts of one model, so give them the same batches in the same order (or None for what "
                    "a rank does not read); replicas get samples of their own."
                )


def _digest(value: Any) -> str:
    """Tells whether two values are the same; empty for None."""
    if value is None:
        return ""
    digest = hashlib.sha256()
    leaves: Sequence[Any] = pytree.tree_leaves(value)
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:16]
