"""Feedback parameters: drawn once, as a function of the seed and their name alone."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import nn

from altprop.ir.errors import CompileError, PlanError
from altprop.ir.graph import FeedbackParameter
from altprop.ir.layouts import FORMATS
from altprop.ir.starts import JACOBIAN
from altprop.ir.torch_private import own_parameters
from altprop.ir.values import stored
from altprop.runtime.draw import draw

Jacobians = Callable[[Sequence[FeedbackParameter]], Mapping[str, torch.Tensor]]


class FeedbackStore(nn.Module):
    """Holds the feedback parameters of a net; behaves as a mapping from connection name to parameter.

    In `state_dict` the dots of a name are written as slashes, since module keys may hold none.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.specs: dict[str, FeedbackParameter] = {}

    def add(
        self,
        specs: Mapping[str, FeedbackParameter],
        model: nn.Module,
        channels_last: Collection[str] = (),
        jacobians: Jacobians | None = None,
    ) -> list[str]:
        """Draws the parameters that are not there yet, in the dtype and on the device of the model's first one.

        One that the model, with another layer in it, wants in another shape is drawn anew; their names are returned.

        Args:
            specs: what to draw, by name.
            model: the model.
            channels_last: names of those that are stored so.
            jacobians: makes the mean Jacobians that some start as.
        """
        weights = dict(model.named_parameters())
        floating = (weight for weight in weights.values() if weight.is_floating_point())
        like = next(floating, torch.zeros(()))  # a model may be made of learners alone
        other = [name for name, spec in specs.items() if name in self.specs and self.specs[name].shape != spec.shape]
        new = {name: spec for name, spec in specs.items() if name not in self.specs or name in other}
        asked = [spec for spec in new.values() if spec.start.kind == JACOBIAN]
        made = jacobians(asked) if asked and jacobians else {}
        for name, spec in specs.items():
            self._refuse_other_type(name, spec, like)
            if name in new:
                value = (made[name] if name in made else draw(self.seed, spec, weights)).to(like.device)
                value = value.to(like.dtype) if spec.dtype == "float" else value
                value = value.contiguous(memory_format=FORMATS[value.dim()]) if name in channels_last else value
                _refuse_infinite(name, value)
                self.register_parameter(stored(name), nn.Parameter(value, requires_grad=spec.learning))
                self.specs[name] = spec
        return other

    def _refuse_other_type(self, name: str, spec: FeedbackParameter, like: torch.Tensor) -> None:
        """Refuses feedback that was left behind when the model took another type.

        Raises:
            CompileError: says how both change.
        """
        own = self[name] if name in self.specs else None
        if own is not None and spec.dtype == "float" and own.dtype != like.dtype:
            raise CompileError(
                f"the model is {_type(like)}, and its feedback {_type(own)}: convert the net in place of its model, "
                "net.half() or net.to(torch.float64), so that both change."
            )

    def __getitem__(self, name: str) -> nn.Parameter:
        if name not in self.specs:
            known = ", ".join(self.specs) or "none"
            raise KeyError(f'there is no feedback "{name}"; there is: {known}')
        parameter = own_parameters(self)[stored(name)]
        assert isinstance(parameter, nn.Parameter)
        return parameter

    def place(self, name: str) -> tuple[dict[str, nn.Parameter | None], str]:
        """Returns the mapping that holds a connection's parameter, and its key there."""
        return own_parameters(self), stored(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        return name in self.specs

    def keys(self) -> list[str]:
        """Returns the names."""
        return list(self.specs)

    def values(self) -> list[nn.Parameter]:
        """Returns the parameters."""
        return [self[name] for name in self.specs]

    def items(self) -> list[tuple[str, nn.Parameter]]:
        """Returns names and parameters."""
        return [(name, self[name]) for name in self.specs]

    def __repr__(self) -> str:
        lines = [f"  {name}: {tuple(p.shape)}" for name, p in self.items()]
        return "\n".join(["FeedbackStore(", *lines, ")"])


def _type(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _refuse_infinite(name: str, value: torch.Tensor) -> None:
    """Refuses feedback that is too large for its numbers, such as those of half a float.

    Raises:
        PlanError: names it.
    """
    if not value.is_floating_point() or not value.numel() or value.is_meta:
        return
    least, most = torch.aminmax(value)
    if not (torch.isfinite(least) and torch.isfinite(most)):
        kind = str(value.dtype).removeprefix("torch.")
        raise PlanError(f'feedback "{name}" is not finite in {kind}: give it a smaller scale=.')
