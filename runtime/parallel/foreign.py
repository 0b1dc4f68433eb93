"""Refuses operators that a device does not have, before anything runs: some exist on one kind of device alone."""

import torch

from altprop.ir.errors import ScheduleError
from altprop.ir.schedule import Lowered
from altprop.ir.torch_private import OpOverload, has_computed_kernel_for_key


def refuse_foreign(lowered: Lowered, number: int, device: torch.device) -> None:
    """Checks the operators of a device's program.

    Args:
        lowered: the schedule and what its tasks run.
        number: number of the device in the schedule.
        device: where its program is to run.

    Raises:
        ScheduleError: names the task and the operator.
    """
    for task in lowered.schedule.programs[number]:
        nodes = lowered.piece(task).program.graph.graph.nodes if task.computes else ()
        for node in nodes:
            if isinstance(node.target, OpOverload) and not has_kernel(node.target, device):
                raise ScheduleError(
                    f'"{task.label}" runs {node.target}, which {device.type} does not have: move the model to a '
                    f"{device.type} device before altprop.compile, or place this region elsewhere."
                )


def has_kernel(operator: OpOverload, device: torch.device) -> bool:
    """Whether an operator runs on a kind of device."""
    return has_computed_kernel_for_key(operator.name(), device.type.upper())
