"""The compilations of a net: finds the one that fits a call, or makes it.

A *variant* is made for inputs of one form, the mode of the model, and what the forward read beside tensors. Where one
of them is another, another variant runs, and is compiled at first. As torch.compile has it, a few stay; when more are
asked for, that is said once, and the one that was not used for longest goes.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from altprop.runtime.call import Call
from altprop.runtime.guards import Guards
from altprop.runtime.variant import Variant
from altprop.runtime.watch_model import Mode, Watch

LIMIT = 8
"""How many variants stay for inputs of one form."""

_LOG = logging.getLogger("altprop")


@dataclasses.dataclass
class Kept:
    """A variant, and what it was made for.

    Attributes:
        variant: the programs.
        call: the form of the inputs.
        values: the inputs that are no tensors.
        mode: the model's.
        guards: what its forward read.
        turn: the watch's, when it was bound.
        looks: the watch's, when the guards were looked up.
        hooks: the user's hooks that were traced; the program is another without them.
    """

    variant: Variant
    call: Any
    values: tuple[Any, ...]
    mode: Mode
    guards: Guards
    turn: int
    looks: int
    hooks: Mapping[Any, Any]

    def holds(self, watch: Watch) -> bool:
        """Whether what forward read, and the hooks that it ran through, are what they were."""
        if self.looks != watch.looks:
            self.looks = watch.looks
            self.guards.forget()
        return self.guards.hold() and self.hooks.keys() <= watch.hooks.keys()

    def differences(self, values: tuple[Any, ...], mode: Mode) -> list[str]:
        """Returns the names of what is no longer as it was."""
        names = [read.name for read in self.guards.changed()]
        if mode.form != self.mode.form:
            names.append("the modules of the model")
        if mode.training != self.mode.training:
            names.append("which modules are in training mode")
        if mode.grads != self.mode.grads:
            names.append("which parameters require grad")
        if (mode.dtypes, mode.device, mode.cast) != (self.mode.dtypes, self.mode.device, self.mode.cast):
            names.append("dtype, device or autocast")
        names += [f"the argument {value!r}" for value, was in zip(values, self.values, strict=False) if value != was]
        return names or ["a form of the target or the batch"]


class Variants:
    """The variants of one net, the one that was used last in front."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._warned = False

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept)

    def find(self, call: Call, mode: Mode, target: Any, watch: Watch, rebind: Callable[[Kept], Kept]) -> Kept | None:
        """Returns the variant that runs a call, and puts it in front.

        Args:
            call: the inputs.
            mode: the model's.
            target: the loss's target, or None.
            watch: of the model: a variant that was bound before modules were replaced is bound anew.
            rebind: does so.
        """
        form, values = call.form(), call.values()
        for index, kept in enumerate(self._kept):
            if kept.call != form or kept.mode != mode or not _same(kept.values, values):
                continue
            if kept.turn != watch.turns:
                kept = self._kept[index] = rebind(kept)
            if kept.variant.fits(call, target) and kept.holds(watch):
                self._kept.insert(0, self._kept.pop(index))
                return kept
        return None

    def keep(self, made: Kept, call: Call, target: Any) -> None:
        """Keeps a new variant; drops the oldest one like it where there are too many, and says so once."""
        alike = [k for k in self._kept if k.call == made.call and _fits(k, call, target)]
        if alike:
            names = ", ".join(alike[0].differences(made.values, made.mode))
            _LOG.info("compiled anew: %s changed", names)
            if len(alike) >= LIMIT:
                self._kept.remove(alike[-1])
                self._say(names)
        self._kept.insert(0, made)

    def _say(self, names: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{names} had {LIMIT} values by now, and for each the net was compiled anew; every further one costs "
                "another compilation. What forward reads beside tensors is fixed in its program: make it a tensor, "
                "a buffer (register_buffer) or an input, which may change freely.",
                UserWarning,
                stacklevel=5,
            )

    def bound(self, bind: Callable[[Kept], Kept]) -> "Variants":
        """Returns the same variants, bound to another net."""
        made = Variants()
        made._kept, made._warned = [bind(kept) for kept in self._kept], self._warned
        return made

    def drop(self, wanted: Callable[[Kept], bool]) -> None:
        """Keeps only what is wanted."""
        self._kept = [kept for kept in self._kept if wanted(kept)]


def _fits(kept: Kept, call: Call, target: Any) -> bool:
    return kept.variant.fits(call, target)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(
        a is b or (type(a) is type(b) and bool(a == b)) for a, b in zip(one, other, strict=True)
    )
