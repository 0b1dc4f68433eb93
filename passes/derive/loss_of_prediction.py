"""The loss of a prediction that a rule makes: of activities that settle, or of a region's own classifier."""

import torch

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.loss import Loss
from altprop.ir.user_lines import place_of


def loss_of_prediction(
    captured: CapturedGraph, loss: Loss, prediction: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Returns the loss as a sum over samples.

    Args:
        captured: the captured model, whose batch is called N in messages.
        loss: the loss that the net was compiled for.
        prediction: of the output's form.
        target: in the form of the output; classes are one-hot codes.

    Raises:
        RuleError: the loss is the caller's own and does not take such a target.
    """
    try:
        return loss.total(prediction, target)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        said = captured.first_line(error)
        raise RuleError(
            "the rule takes the loss of predictions of its own, by a target in the form of the output, "
            f"{captured.shape_text(target)}. The loss {loss.name} fails on that{place_of(error)}: {said}. "
            "Write it for such targets, or use a rule that takes the loss at the model's outputs alone, such as dfa."
        ) from error
