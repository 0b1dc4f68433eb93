"""Models of published tables that `altprop.models` does not have."""

import itertools

from torch import nn

import altprop


class SignNet(nn.Sequential):
    """784 - 5 x 256 - 10 with the sign as activation, which has no derivative (rec-LRA, Table 1)."""

    def __init__(self, inputs: int = 784, width: int = 256, layers: int = 5, classes: int = 10) -> None:
        widths = [inputs, *[width] * layers]
        hidden: list[nn.Module] = []
        for one, other in itertools.pairwise(widths):
            hidden += [nn.Linear(one, other), altprop.nn.Sign()]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(width, classes))


class Shallow(nn.Sequential):
    """One layer from the input to the output: what a deep model has to beat."""

    def __init__(self, inputs: int = 3072, classes: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, classes))
