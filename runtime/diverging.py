"""Says once that the states of a rule grow without bound in its rounds, where they should settle.

The loss of a step is computed in front of its rounds, so a step whose states diverge leaves parameters that are no
numbers, and the next loss is none either. That is what is looked at: a number that is there anyway. On an accelerator a
look waits for the device, so there it is taken seldom.
"""

import warnings

import torch

from altprop.ir.graph import ErrorGraph

SELDOM = 50
"""On an accelerator, one step in so many is looked at."""


def remedy_in(graph: ErrorGraph) -> str:
    """A sentence on what to change where the rounds of a graph's rules diverge; empty where no rule has rounds."""
    return next((one.remedy for one in graph.neurons.values() if one.remedy), "")


class Diverging:
    """The word that a net has for its user when what it settles does not settle.

    Attributes:
        told: whether the user was told.
    """

    def __init__(self) -> None:
        self.told = False
        self._unseen = 0

    def look(self, remedy: str, made: torch.Tensor) -> None:
        """Warns where a loss, or an output, holds NaN; once in the life of a net.

        Infinity is no sign: a model may return it on purpose, and where it is one, NaN follows a step later.

        Args:
            remedy: a sentence on what to change; empty where no rule has rounds, and then nothing is looked at.
            made: the loss or an output of the forward.
        """
        if not remedy or self.told or not self._is_time(made) or not bool(made.isnan().any()):
            return
        self.told = True
        warnings.warn(
            f"the {'loss' if made.dim() == 0 else 'output'} is NaN. {remedy}. Too high a learning rate does the "
            "same. The parameters may be NaN now: begin again from a model whose parameters are not.",
            stacklevel=3,
        )

    def _is_time(self, made: torch.Tensor) -> bool:
        self._unseen += 1
        return made.device.type == "cpu" or self._unseen % SELDOM == 0
