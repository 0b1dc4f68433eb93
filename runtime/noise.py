"""Noise that programs take as inputs: a stream of the net's own, drawn anew for every run.

What a run gets is a function of the seed, of how many runs there were before, and of the slot's name, so a net that
is loaded goes on with the very numbers that the saved one would have had. No global random state is touched.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.program import Slot
from altprop.ir.sizes import line_in_batch
from altprop.ir.torch_private import InCheckpoints, own_buffers

Form = tuple[Slot, torch.dtype, tuple[tuple[int, int], ...]]
"""A slot, its dtype, and each of its sizes as `(a, b)` with `a batch + b`."""


class Noise(InCheckpoints):
    """Draws noise and counts the draws; it has state only in a net whose rules draw."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.count = 0

    def use(self) -> None:
        """Makes the count part of the net's state."""
        if "draws" not in own_buffers(self):
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def draw(self, forms: Sequence[Form], batch: int, device: torch.device) -> dict[Slot, torch.Tensor]:
        """Returns standard normal numbers for some slots, and counts one draw if there are any."""
        found: dict[Slot, torch.Tensor] = {}
        generator = torch.Generator(device) if forms else None
        for slot, dtype, sizes in forms:
            assert generator is not None
            generator.manual_seed(_seed(f"{self.seed}:{self.count}:{slot.name}"))
            shape = [a * batch + b for a, b in sizes]
            found[slot] = torch.randn(shape, generator=generator, dtype=dtype, device=device)
        self.count += bool(forms)
        return found

    def into_checkpoint(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds the count, if it is part of the net's state."""
        draws = own_buffers(self).get("draws")
        if draws is not None:
            draws.fill_(self.count)
        super().into_checkpoint(destination, prefix, keep_vars)

    def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes up the count, if it is part of the net's state."""
        draws = own_buffers(self).get("draws")
        if draws is not None:
            draws.fill_(self.count)  # what a checkpoint does not hold stays
        super().out_of_checkpoint(state_dict, prefix, *rest)
        draws = own_buffers(self).get("draws")
        if draws is not None:
            self.count = int(draws)


def noise_forms(graph: ErrorGraph) -> list[Form]:
    """Returns what the noise slots of a net's programs want, each once.

    Raises:
        CompileError: a size does not follow the batch along a line.
    """
    found = {slot: (slot, value.dtype, _lines(value)) for slot, value in _noise(graph)}
    return list(found.values())


def _noise(graph: ErrorGraph) -> Iterator[tuple[Slot, torch.Tensor]]:
    for update in graph.updates.values():
        for name, value in update.noise.items():
            yield Slot("noise", name), value
    for program in graph.programs.values() if graph.alternation is not None else ():  # other rules' updates too
        for slot, node in program.placeholders.items():
            if slot.kind == "noise":
                yield slot, node.meta["val"]


def _lines(value: torch.Tensor) -> tuple[tuple[int, int], ...]:
    lines = [line for size in value.shape if (line := line_in_batch(size))]
    if len(lines) < value.dim():
        raise CompileError(f"noise of the shape {tuple(value.shape)}, which does not grow with the batch.")
    return tuple(lines)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
