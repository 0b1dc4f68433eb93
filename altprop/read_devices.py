"""What `devices=` may be: one device's name, a number of devices, a list of devices, or a mesh of processes."""

import dataclasses
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from altprop.ir.errors import CompileError

REGION, REPLICA = "region", "replica"


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices that a net is to be scheduled on.

    Attributes:
        count: how many.
        names: their names; None means devices like that of the model.
        mesh: mesh of the processes that have a device each, with the dimension "region" and, for replicas, "replica".
    """

    count: int = 1
    names: tuple[str, ...] | None = None
    mesh: DeviceMesh | None = None

    def named(self, like: str) -> list[str]:
        """Returns the names of all devices.

        Args:
            like: name of the device that the model is on.
        """
        return list(self.names) if self.names is not None else [like] * self.count


def read_devices(devices: Any, error: type[CompileError] = CompileError) -> Devices:
    """Reads `devices=`.

    Args:
        devices: None, one name, a number, a list of names or of `torch.device`, or a `DeviceMesh`.
        error: class of the error to raise.

    Raises:
        CompileError: says what it may be.
    """
    if devices is None or isinstance(devices, str | torch.device):
        return Devices()
    if isinstance(devices, DeviceMesh):
        return _of_mesh(devices, error)
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0:
        return Devices(devices)
    if isinstance(devices, list | tuple) and devices and all(isinstance(one, str | torch.device) for one in devices):
        return Devices(len(devices), tuple(map(str, devices)))
    raise error(
        f"devices={devices!r}: give one device's name, a number of devices, a list of names, or a DeviceMesh with the "
        f'dimensions ("{REPLICA}", "{REGION}").'
    )


def _of_mesh(mesh: DeviceMesh, error: type[CompileError]) -> Devices:
    """Reads a mesh: its ranks along "region" have a device each."""
    names = mesh.mesh_dim_names or ()
    if REGION not in names or set(names) - {REGION, REPLICA}:
        raise error(
            f"the mesh has the dimensions {names}: make one with mesh_dim_names "
            f'("{REGION}",) or ("{REPLICA}", "{REGION}").'
        )
    count = mesh.size(names.index(REGION))
    return Devices(count, (mesh.device_type,) * count, mesh)
