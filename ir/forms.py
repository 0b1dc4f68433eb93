"""What was derived once, kept by its form for later compilations.

A *form* is a piece of a graph written without names: two regions that are alike but for their names have one form, in
one model or in two. What a trace made of a form is kept for the life of the process, up to a number of forms: the one
that was asked for longest ago goes first.

Forms belong to one fake-tensor mode, whose values they hold.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any

import torch

from altprop.ir.autocast import casts

MOST = 512


class Forms:
    """What was made of each form; see the module."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, Any] = OrderedDict()
        self._twins: OrderedDict[int, list[torch.Tensor]] = OrderedDict()

    def distinct(self, values: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Returns fake tensors of the forms of some values, each another object, as a tracer wants its inputs."""
        seen: Counter[int] = Counter()
        found = []
        for value in values:
            twins = self._twins.setdefault(id(value), [value])
            if len(twins) <= seen[id(value)]:
                twins.append(value.detach())
            found.append(twins[seen[id(value)]])
            seen[id(value)] += 1
        while len(self._twins) > self._most:
            self._twins.popitem(last=False)
        return found

    def find(self, kind: str, form: Hashable) -> Any:
        """Returns what was made of a form, or None."""
        key = (kind, form, ambient())
        if key in self._made:
            self._made.move_to_end(key)
        return self._made.get(key)

    def add(self, kind: str, form: Hashable, made: Any) -> None:
        """Keeps what was made of a form."""
        self._made[kind, form, ambient()] = made
        while len(self._made) > self._most:
            self._made.popitem(last=False)

    def clear(self) -> None:
        """Forgets all."""
        self._made.clear()
        self._twins.clear()

    def __len__(self) -> int:
        return len(self._made)


def ambient() -> Hashable:
    """What of torch's state a trace depends on: the default type of numbers, autocast, the kernels to choose from."""
    cuda = torch.backends.cuda
    attention = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()
    kernels = torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled()
    return torch.get_default_dtype(), tuple(casts().items()), attention, kernels
