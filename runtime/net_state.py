"""What a net keeps: its parameters, their groups, and checkpoints."""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.members import Members
from altprop.ir.training_recipe import Recipe
from altprop.ir.values import STATE_DICT
from altprop.runtime.net_views import NetViews
from altprop.runtime.parameter_groups import groups_of
from altprop.runtime.tied import leave_out, other_names, put_back

# Kinds of what a checkpoint holds that a net has only once it is compiled.
_MADE_BY_CAPTURE = ("feedback", "state", "noise")


class NetState(NetViews):
    """A net's parameters and state, in every form in which they are asked for; see `LocalNet`."""

    def feedback_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the feedback parameters, learned and fixed."""
        yield from self.feedback.values()

    def param_groups(
        self,
        lr: float | None = None,
        feedback_lr: float | None = None,
        feedback_weight_decay: float | None = None,
        output_rate: float | None = None,
        matrices: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Returns parameter groups for `torch.optim`: the model's parameters, and the learned feedback.

        Without `lr` what is not given is as in the rule's recipe, `net.recipe`. Where that has a decay for AdamW, the
        groups keep it apart from the gradient under `torch.optim.Adam` too. An optimizer that knows no such decay adds
        it to the gradient, which is far too much: give `lr`, and the groups have no decay.

        Args:
            lr: learning rate of the model's parameters.
            feedback_lr: learning rate of learned feedback; None means `lr`.
            feedback_weight_decay: weight decay of learned feedback; None means 0.
            output_rate: times `lr`, the rate of the parameters of output regions, a group of their own then.
            matrices: True for hidden matrices, which `torch.optim.Muon` takes; False for what it does not take;
                None for all.
        """
        self._warn_if_late()
        given: dict[str, Any] = {"lr": lr, "feedback_lr": feedback_lr, "output_rate": output_rate}
        given |= {"feedback_weight_decay": feedback_weight_decay}
        # What is asked for here decays as the user's own optimizer does, not as the recipe's.
        usual = self.recipe if lr is None else Recipe("adam", feedback_weight_decay=0.0)
        recipe = dataclasses.replace(usual, **{key: value for key, value in given.items() if value is not None})
        members = Members.of(self.graph) if self.compilations.first is not None else Members()
        return groups_of(self.model, dict(self.feedback.items()), members, recipe, matrices)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yields the model's parameters, then the feedback parameters."""
        self._warn_if_late()
        return super().parameters(recurse)

    def _warn_if_late(self) -> None:
        if self.compilations.first is None and not self.__dict__.get("_warned"):
            self._warned = True
            warnings.warn(
                "the net is captured at its first call, so feedback parameters do not exist yet and an optimizer "
                "made now will not move them; pass example_inputs= to altprop.compile.",
                stacklevel=3,
            )

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns everything, feedback included; tensors that stand in several places of the model once.

        So any format can hold it, safetensors too, which refuses two names for one tensor.
        """
        state = super().state_dict(*args, **kwargs)
        leave_out(other_names(self.model), state, f"{kwargs.get('prefix', '')}model.")
        return state

    def out_of_checkpoint(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes up what `state_dict` returned; a tensor under all names that it has in the model."""
        put_back(other_names(self.model), state_dict, f"{prefix}model.")
        super().out_of_checkpoint(state_dict, prefix, *rest)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what `state_dict` returned; the next step is bit-identical.

        Raises:
            CompileError: the checkpoint has feedback or optimizer state, and nothing is compiled yet.
            RuntimeError: names or shapes differ; says first whose state it is.
        """
        extra = [k for k in state_dict if STATE_DICT.read(k).kind in _MADE_BY_CAPTURE and k != "state.step"]
        if self.compilations.first is None and extra:
            raise CompileError(
                "the checkpoint holds feedback or optimizer state, which exists only after capture: "
                "pass example_inputs= to altprop.compile."
            )
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise RuntimeError(f"{self._whose(state_dict)}{error}") from error

    def _whose(self, state_dict: Mapping[str, Any]) -> str:
        """Says whose state a state is that does not fit; empty where that cannot be told."""
        if self.model.state_dict().keys() == state_dict.keys():
            return "this is the state of the model alone: net.model.load_state_dict takes it.\n"
        if _kind(state_dict, "feedback") != _kind(self.state_dict(), "feedback"):
            return (
                "this is the state of a net with other connections: compile with the plan that it was saved with, or "
                "load the model's part, the keys that begin with 'model.', without that beginning, by "
                "net.model.load_state_dict.\n"
            )
        if _kind(state_dict, "state") != _kind(self.state_dict(), "state"):
            return (
                "this is the state of a net with another optimizer inside, or with none: compile with the one that it "
                "was saved with, or say strict=False, which leaves the optimizer's state here as it is.\n"
            )
        return ""


def _kind(state: Mapping[str, Any], kind: str) -> set[str]:
    """The keys of one kind."""
    return {key for key in state if STATE_DICT.read(key).kind == kind}
