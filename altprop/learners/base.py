"""`Learner`: a region of a net that teaches itself (Zenkai, arXiv 2311.09663: `step` and `step_x`)."""

from collections.abc import Sequence
from typing import Any

import torch

from altprop.ir.errors import LearnerError
from altprop.ir.learner_operators import HANDLE, are_open, enter
from altprop.ir.torch_private import InCheckpoints

_PREFIX = "learned."


class Learner(InCheckpoints):
    """Base of all regions that the compiler does not look into and that teach themselves.

    A subclass says by `shape` what it returns, and has a `predict` and a `learn`. At every step of the net its region
    gets an error `e` by whichever rule it follows, and behind the step the learner gets its input and the target

        t = z - step e

    with `z` what it had predicted. Nothing need be differentiable.

    Attributes:
        step: how far targets lie along the error.
        crosses: whether errors cross the learner, which has a `target` then.
    """

    handle: torch.Tensor
    in_operators: bool = True
    """Whether `predict` is made of torch's operators, so that a file of the forward can hold what it has learned."""

    def __init__(self, step: float = 1.0) -> None:
        """Takes how far targets lie along the error."""
        super().__init__()
        if not step > 0:
            raise LearnerError(f"{type(self).__name__}: step={step}; it is above 0.")
        self.step = step
        self.crosses = type(self).target is not Learner.target
        self.register_buffer(HANDLE, enter(self), persistent=False)

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """Returns the sizes of the prediction behind the batch, such as `(32,)`; `x` may be a fake tensor."""
        raise NotImplementedError(f"{type(self).__name__} lacks shape(x), which each learner has")

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the prediction, (N, *shape); runs without gradients, and alters nothing."""
        raise NotImplementedError(f"{type(self).__name__} lacks predict(x), which each learner has")

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Learns that the prediction for `x`, (N, ...), should have been `t`, (N, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} lacks learn(x, t), which each learner has")

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Returns what the input should have been so that the prediction would have been `t`: of the shape of `x`.

        A learner that has this method lets errors cross it: `x - target(x, z - e)` is what an error `e` is at its
        input, for every rule whose errors go back along the forward's edges.

        Raises:
            LearnerError: the learner does not know.
        """
        raise LearnerError(f"{type(self).__name__} has no target(): no error crosses it.")

    def state(self) -> dict[str, torch.Tensor]:
        """Returns all that was learned, as tensors by name."""
        return {}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes up what `state` returned."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the prediction; for a file, as the operators that make it now."""
        if are_open():
            return self.predict(x).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
        sizes = [int(size) for size in self.shape(x)]
        made: torch.Tensor = torch.ops.altprop.predict(x, self.handle, sizes, float(self.step), self.crosses)
        return made

    def into_checkpoint(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds the module's own tensors, and what `state` returns."""
        super().into_checkpoint(destination, prefix, keep_vars)
        for name, value in self.state().items():
            destination[f"{prefix}{_PREFIX}{name}"] = value

    def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes up the module's own tensors, and has `load` take up what `state` returned."""
        *_, errors = rest
        start = f"{prefix}{_PREFIX}"
        own = {key: value for key, value in state_dict.items() if key.startswith(start)}
        others = {key: value for key, value in state_dict.items() if key not in own}
        super().out_of_checkpoint(others, prefix, *rest)
        try:
            self.load({key.removeprefix(start): value.clone() for key, value in own.items()})
        except (LearnerError, KeyError, RuntimeError, ValueError) as error:
            errors.append(f"{prefix.rstrip('.')}: {type(self).__name__} does not load: {error}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = enter(self).to(self.handle.device)  # a copy is a learner of its own


def rows(x: torch.Tensor) -> torch.Tensor:
    """Returns (N, features) on the CPU, without gradients; half precision becomes float32, which others can read."""
    x = x.detach().reshape(x.shape[0], -1).cpu()
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
