"""How much memory direct feedback takes, by kind, and whether it fits.

A dense matrix from 1000 classes to an image's activity of 800 000 units holds 3 GiB; a model of 54 regions has 54 of
them. The other kinds need far less; see `altprop.rules.feedback`.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altprop.ir.errors import CompileError, PlanError
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.region import Region
from altprop.rules.feedback import DIRECT, Part, Place, choose_direct_kind

_SMALLER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "kind='channel'": ("channel", {}),
    "kind='position', options={'rank': 16}": ("position", {"rank": 16}),
    "kind='low_rank', options={'rank': 16}": ("low_rank", {"rank": 16}),
    "kind='unified'": ("unified", {}),
    "kind='binary'": ("binary", {}),
}
_GIB = 2**30
_BYTES = {"float": 4, "int64": 8, "uint8": 1}


def default_bytes(regions: Iterable[Region], output: Region) -> int:
    """Bytes, in float32, of direct feedback from an output to every region, of the kind that is chosen by default."""
    return sum(_bytes(_parts(output, r, choose_direct_kind(output, r), {}) or ()) for r in regions if r is not output)


def smaller_kinds(regions: Iterable[Region], output: Region) -> dict[str, int]:
    """Returns the bytes of the kinds that fit between the output and all regions, by how a rule asks for them."""
    hidden = [region for region in regions if region is not output]
    found: dict[str, int] = {}
    for text, (kind, options) in _SMALLER.items():
        parts = [_parts(output, region, kind, options) for region in hidden]
        if all(part is not None for part in parts):
            shared = [part for of_region in parts for part in of_region or () if part.shared]
            own = [part for of_region in parts for part in of_region or () if not part.shared]
            found[text] = _bytes(own) + max((_bytes([part]) for part in shared), default=0)
    return found


def _parts(output: Region, region: Region, kind: str, options: Mapping[str, Any]) -> list[Part] | None:
    """The tensors of a kind between two regions; None if it does not fit."""
    try:
        return list(DIRECT[kind].parts(Place(output, region, options)))
    except PlanError:
        return None


def _bytes(parts: Iterable[Part | FeedbackParameter]) -> int:
    return sum(math.prod(part.shape) * _BYTES[part.dtype] for part in parts)


def refuse_too_large(graph: ErrorGraph, model: nn.Module) -> None:
    """Refuses feedback that the memory of the model's device cannot hold, before any of it is drawn.

    Raises:
        CompileError: says how much is needed, how much there is, and which kinds would fit.
    """
    like: torch.Tensor = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    needed = sum(_bytes([p]) * (like.element_size() if p.dtype == "float" else 4) // 4 for p in graph.feedback.values())
    free = free_memory(like.device)
    if needed <= free:
        return
    output = next(region for region in graph.regions if region.is_output)
    kinds = {text: size for text, size in smaller_kinds(graph.regions, output).items() if size < min(free, needed)}
    raise CompileError(
        f"the feedback would take {needed / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free on {like.device}. "
        f"{advice(kinds)}"
    )


def advice(kinds: Mapping[str, int]) -> str:
    """A sentence on what to choose in the place of feedback that is too large."""
    if not kinds:
        return "Let fewer regions hear from the output, with regions='block', or use a rule such as fa."
    sizes = ", ".join(f"{text} ({size / _GIB:.2f} GiB)" for text, size in sorted(kinds.items(), key=lambda k: k[1]))
    return f"Smaller ones, as options of the rule: {sizes}."


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device; infinite where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.exists():
        return math.inf
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else math.inf
