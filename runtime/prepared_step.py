"""A step that is ready for batches like the last one.

A step's operators go through more memory than the caches hold, so that every Python object that is looked at between
two steps has to be fetched again, and beside a small network that takes time. What `net.step` found out
about a batch is kept here: the next batch of the same form asks only for what may have changed.
"""

from typing import Any

import torch

from altprop.ir.optimizers import Optimizer
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.variants import Kept
from altprop.runtime.watch_model import Watch

_Form = tuple[torch.dtype, torch.device, torch.Size]


class Ready:
    """The step of one variant, for batches of one tensor with a target of one tensor.

    Attributes:
        variant: whose program runs.
    """

    def __init__(self, kept: Kept, watch: Watch, state: OptimizerState, inputs: Any, target: Any) -> None:
        """Takes what a step found out about `inputs` and `target`; see `can_be`."""
        self.variant = variant = kept.variant
        self._watch, self._looks = watch, watch.looks
        self._still = watch.still + kept.guards.still
        self._state = state
        self._executor = variant.executor("step")
        self._forms = _form(inputs), _form(target)
        self._dense = variant.takes_dense
        self._least = variant.least_batch
        slots = list(enumerate(self._executor.program.inputs))
        places = [self._executor.bindings.place(slot) for _, slot in slots]
        self._residents = [place for place in places if place is not None]
        self._given = [
            (index, slot.kind, slot.name) for (index, slot), place in zip(slots, places, strict=True) if place is None
        ]

    @staticmethod
    def can_be(kept: Kept, inputs: Any, target: Any) -> bool:
        """Whether the steps of a variant on such batches can be made ready."""
        plain = _is_plain(inputs, target) and not torch.is_autocast_enabled(inputs.device.type)
        return plain and kept.variant.is_simple and kept.guards.hold()

    def holds(self, device_type: str) -> bool:
        """Whether the model, and all that its forward read, is what it was."""
        return (
            self._still()
            and self._looks == self._watch.looks
            and self._watch.settings_unchanged()
            and not torch.is_autocast_enabled(device_type)
        )

    def takes(self, inputs: Any, target: Any) -> bool:
        """Whether a batch has the form that this step was made for."""
        return (
            _is_plain(inputs, target)
            and (_form(inputs), _form(target)) == self._forms
            and self._least <= inputs.shape[0] == target.shape[0]
        )

    def run(self, inputs: torch.Tensor, target: torch.Tensor, optimizer: Optimizer) -> torch.Tensor:
        """Runs the step; returns the loss."""
        args = [table[key] for table, key in self._residents]
        scalars = optimizer.scalars(self._state.advance())
        for index, kind, name in self._given:  # from the first place on, so each finds its own
            if kind == "scalar":
                args.insert(index, scalars[name])
            elif kind == "target":
                args.insert(index, target.contiguous())
            else:
                args.insert(index, inputs.contiguous() if self._dense else inputs)
        loss: torch.Tensor
        (loss,) = self._executor.call(args)
        return loss


def _is_plain(inputs: Any, target: Any) -> bool:
    return (
        isinstance(inputs, torch.Tensor) and isinstance(target, torch.Tensor) and inputs.dim() > 0 and target.dim() > 0
    )


def _form(tensor: torch.Tensor) -> _Form:
    return tensor.dtype, tensor.device, tensor.shape[1:]
