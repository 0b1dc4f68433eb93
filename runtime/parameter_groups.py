"""Parameter groups for `torch.optim`: the model's parameters, those of output regions, and learned feedback."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from altprop.ir.members import Members
from altprop.ir.training_recipe import Recipe


def groups_of(
    model: nn.Module,
    feedback: Mapping[str, nn.Parameter],
    members: Members,
    recipe: Recipe,
    matrices: bool | None = None,
) -> list[dict[str, Any]]:
    """Returns the groups that have any parameters.

    Args:
        model: the model; all its parameters are listed.
        feedback: feedback parameters by connection; those that learn are listed.
        members: which parameters are of output regions, a group of their own if their rate is one, and which matrices.
        recipe: rates and decays; a decay that it does not say is left to the optimizer. One for AdamW is that of AdamW
            under `torch.optim.Adam` too, which would add it to the gradient otherwise.
        matrices: True for hidden matrices of two dimensions alone, as `torch.optim.Muon` takes them; False for all
            else; None for all.
    """
    rate = 1.0 if recipe.output_rate is None else recipe.output_rate
    apart = set() if rate == 1 else members.outputs

    def wanted(name: str, parameter: nn.Parameter) -> bool:
        return matrices is None or matrices == (name in members.matrices and parameter.dim() == 2)

    named = {name: p for name, p in model.named_parameters() if wanted(name, p)}
    learned = [p for name, p in feedback.items() if p.requires_grad and wanted(name, p)]
    feedback_lr = recipe.lr if recipe.feedback_lr is None else recipe.feedback_lr
    feedback_decay = recipe.weight_decay if recipe.feedback_weight_decay is None else recipe.feedback_weight_decay
    decoupled = recipe.optimizer == "adamw"
    groups = [
        _group([p for name, p in named.items() if name not in apart], recipe.lr, recipe.weight_decay, decoupled),
        _group([p for name, p in named.items() if name in apart], recipe.lr * rate, recipe.weight_decay, decoupled),
        _group(learned, feedback_lr, feedback_decay, decoupled),
    ]
    return [group for group in groups if group["params"]]


def _group(parameters: list[nn.Parameter], lr: float, decay: float | None, decoupled: bool) -> dict[str, Any]:
    made: dict[str, Any] = {} if decay is None else {"weight_decay": decay}
    made |= {"decoupled_weight_decay": True} if decay and decoupled else {}
    return {"params": parameters, "lr": lr, **made}
