"""Models of published tables that `altprop.models` does not have."""

import itertools

from torch import Tensor, nn

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


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers, for 32x32 images, batch norm before each relu.

    The direct Kolen-Pollack paper (Table 2) prints no layers. These have the widths and the dropout of Krizhevsky 2012,
    and filters of three pixels, since its first ones, of eleven, are made for images seven times as wide.
    """

    CHANNELS = (64, 192, 384, 256, 256)
    POOLED = (0, 1, 4)

    def __init__(self, classes: int = 100, features: int = 4096) -> None:
        super().__init__()
        widths = itertools.pairwise((3, *self.CHANNELS))
        self.convolutions = nn.Sequential(
            *(self._layer(number, *pair) for number, pair in enumerate(widths)), nn.Flatten()
        )
        widths = itertools.pairwise((self.CHANNELS[-1] * 4, features, features))
        self.fc = nn.Sequential(*(self._dense(*pair) for pair in widths), nn.Linear(features, classes))

    def _layer(self, number: int, inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=1 if number else 2, padding=1, bias=False)
        pool = [nn.MaxPool2d(2)] if number in self.POOLED else []
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), *pool)

    def _dense(self, inputs: int, outputs: int) -> nn.Sequential:
        linear = nn.Linear(inputs, outputs, bias=False)
        return nn.Sequential(nn.Dropout(), linear, nn.BatchNorm1d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) to (N, classes)."""
        return self.fc(self.convolutions(x))
