"""Guards: asks at each call whether what a program was made from still stands.

A step of a small net takes as long as a few hundred of Python's operations, so what is asked at every step is one pass
over lists, in which nothing but identities is compared. Only where one differs is anything looked at more closely.
"""

import types
from collections.abc import Iterable, Sequence
from operator import getitem, is_
from typing import Any

import torch
from torch import nn

from altprop.ir.reads import LENGTH, VALUE, Place, Read


class Still:
    """Says whether the same objects still stand at some places, and lists are still as long."""

    def __init__(self, places: Iterable[tuple[Place, Any]], lengths: Iterable[Any] = ()) -> None:
        """Notes what must stay.

        Args:
            places: where an object stands, and which.
            lengths: lists and mappings whose length must stay.
        """
        found = list(places)
        simple = [entry for entry in found if _is_simple(entry[1])]
        others = [entry for entry in found if not _is_simple(entry[1])]
        self.simple = [place[0] for place, _ in simple], [place[1] for place, _ in simple]
        self.values = [what for _, what in simple]
        self.others = [place[0] for place, _ in others], [place[1] for place, _ in others]
        self.objects = [what for _, what in others]
        self.sized = list(lengths)
        self.sizes = list(map(len, self.sized))

    def __add__(self, other: "Still") -> "Still":
        both = Still(())
        for name in ("values", "objects", "sized", "sizes"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        for name in ("simple", "others"):
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(both, name, tuple(one + more for one, more in pairs))
        return both

    def __call__(self) -> bool:
        """Whether all is as it was."""
        try:
            return (
                list(map(getitem, *self.simple)) == self.values  # looks at identities first, in one go
                and (not self.objects or all(map(is_, map(getitem, *self.others), self.objects)))
                and (not self.sizes or list(map(len, self.sized)) == self.sizes)
            )
        except (KeyError, IndexError):
            return False


def _is_simple(value: Any) -> bool:
    """Whether two such objects that are equal are as good as one."""
    return type(value) in _SIMPLE or isinstance(value, nn.Module)


_SIMPLE = (bool, str, type(None), torch.dtype, types.FunctionType)  # no numbers: 2 equals 2.0


class Guards:
    """What a forward read beside tensors, looked up in one model.

    Attributes:
        still: whether the objects are the same ones.
    """

    def __init__(self, reads: Sequence[Read], model: nn.Module, *, fresh: bool = False) -> None:
        """Looks up where everything stands.

        Args:
            reads: what was read.
            model: the model, or a copy of the one that was captured.
            fresh: whether objects that are no plain values count as they are now, as in a copy.
        """
        self._model = model
        self._wanted = [read.value for read in reads]
        self._reads = reads
        self.still: Still = Still(())
        self._known: bool = False
        if fresh:
            self._wanted = [read.now(model) if read.kind not in (VALUE, LENGTH) else read.value for read in reads]
        self.hold()

    def bind(self, model: nn.Module) -> "Guards":
        """Returns the same guards for a copy of the model, whose objects are copies too."""
        return Guards(self._reads, model, fresh=True)

    def again(self, model: nn.Module) -> "Guards":
        """Returns the same guards for the model, some of whose modules are others now."""
        return Guards(self._reads, model)

    def hold(self) -> bool:
        """Whether everything is what it was; equal values count."""
        if self._known and self.still():
            return True
        if self.changed():
            return False
        self.still, self._known = self._look_up(), True
        return True

    def forget(self) -> None:
        """Has the next look be a close one, since the model's modules are not what they were."""
        self.still, self._known = Still(()), False

    def changed(self) -> list[Read]:
        """Returns what is no longer as it was read."""
        pairs = zip(self._reads, self._wanted, strict=True)
        return [read for read, wanted in pairs if not read.fits(read.now(self._model), wanted)]

    def _look_up(self) -> Still:
        """Looks up all places, also those on the way: a list may be replaced by another as a whole."""
        ways = [(read.places(self._model), read) for read in self._reads]
        same = {(id(table), key): ((table, key), table[key]) for way, _ in ways for table, key in way}
        last = [way[-1] for way, read in ways if read.kind == LENGTH]
        return Still(same.values(), [table[key] for table, key in last])
