"""Models of the studies that the direct feedback alignment survey reports."""

from collections.abc import Callable, Mapping

from torch import nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky relu, slope -0.5": lambda: nn.LeakyReLU(-0.5),
}
NORMS: Mapping[str, Callable[[int], nn.Module] | None] = {
    "no norm": None,
    "batch norm": nn.BatchNorm1d,
    "layer norm": nn.LayerNorm,
}


def dense(
    layers: int = 3, width: int = 128, activation: str = "tanh", norm: str = "no norm", dropout: float = 0.0
) -> nn.Module:
    """784 - layers x width - 10, the norm in front of the activation, dropout behind it."""
    parts: list[nn.Module] = [nn.Flatten()]
    made = NORMS[norm]
    for index in range(layers):
        parts.append(nn.Linear(width if index else 784, width))
        parts += [] if made is None else [made(width)]
        parts.append(ACTIVATIONS[activation]())
        parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.Linear(width, 10))


def convolutional() -> nn.Module:
    """Two convolutions, then two hidden layers and the output, for 28x28 images."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10)),
    )


FEATURES = 6
"""Parts of `convolutional` in front of its fully connected layers."""
_VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def vgg16(classes: int = 1000) -> nn.Module:
    """VGG-16 for 224x224 images (Simonyan and Zisserman 2015); 0 stands for a pooling."""
    parts: list[nn.Module] = []
    channels = 3
    for width in _VGG_16:
        parts += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    head = (nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes))
    return nn.Sequential(*parts, nn.Flatten(), *head)
