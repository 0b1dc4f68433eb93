"""Ten small tasks: data, a model of each kind, and how a trained net is scored. A default must learn eight of them.

Each model is written for backpropagation and knows nothing of local learning. Scores are test accuracy in per cent, or
held-out loss in nats a character.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altprop.data import load
from altprop.data.characters import Characters, load_characters

Pair = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Inputs and targets for training and for the test, and how batches of them are compared.

    Attributes:
        train: inputs and targets.
        test: inputs and targets.
        loss: of a model's output and a target.
    """

    train: Pair
    test: Pair
    loss: Callable[[Any, Any], Tensor]


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        model: makes the model.
        examples: loads the data from a folder.
        epochs: passes over the training data that backpropagation learns it in.
        batch: samples of a step.
        nats: whether the score is a loss in nats, where less is better.
    """

    model: Callable[[], nn.Module]
    examples: Callable[[Path | None], Examples]
    epochs: int
    batch: int = 64
    nats: bool = False


def images(name: str, subset: int | None = None) -> Callable[[Path | None], Examples]:
    """A set of images with one label each."""

    def loaded(folder: Path | None) -> Examples:
        data = load(name, folder, subset=subset)
        pairs = [(data.inputs(split.images), split.labels) for split in (data.train, data.test)]
        return Examples(pairs[0], pairs[1], nn.functional.cross_entropy)

    return loaded


def two_headed(folder: Path | None) -> Examples:
    """The digits with two targets: which digit it is, and how much ink it has, from 0 to 1."""
    data = load("digits", folder)
    pairs = []
    for split in (data.train, data.test):
        x = data.inputs(split.images)
        ink = x.flatten(1).mean(1, keepdim=True)
        pairs.append((x, (split.labels, (ink - ink.min()) / (ink.max() - ink.min()))))

    def loss(output: Any, target: Any) -> Tensor:
        return nn.functional.cross_entropy(output[0], target[0]) + nn.functional.mse_loss(output[1], target[1])

    return Examples(pairs[0], pairs[1], loss)


LENGTH = 32
"""Characters in a window."""


def shakespeare(windows: int) -> Callable[[Path | None], Examples]:
    """Windows of tiny Shakespeare, each with the next character at every position."""

    def loaded(folder: Path | None) -> Examples:
        text: Characters = load_characters(folder or "data")
        x, y = text.batch(windows, LENGTH, torch.Generator().manual_seed(1))
        rows = text.validation[: 256 * (LENGTH + 1)].view(256, LENGTH + 1)

        def loss(output: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

        return Examples((x, y), (rows[:, :-1], rows[:, 1:]), loss)

    return loaded


def convnet() -> nn.Module:
    """Two convolutions and two layers, for 8x8 images."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def eight_convolutions(channels: int = 24) -> nn.Module:
    """Eight convolutions in a row, without norms and without shortcuts."""
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
    for depth in range(7):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if depth == 3 else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def mlp() -> nn.Module:
    """784 - 5 x 256 tanh - 10."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, 256), nn.Tanh()]
    for _ in range(4):
        layers += [nn.Linear(256, 256), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def two_convolutions() -> nn.Module:
    """Two convolutions with batch norm and two layers, for 28x28 images."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


class TwoHeaded(nn.Module):
    """A trunk of two layers; one head says the digit, the other a number."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU())
        self.digit = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.ink = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, 1, 8, 8) to (N, 10) and (N, 1)."""
        z = self.trunk(x)
        return self.digit(z), self.ink(z)


class SqueezeBlock(nn.Module):
    """A residual block whose channels are weighed by what the whole image holds of them (Hu 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excite = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        z = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(z.mean((2, 3))))))
        return torch.relu(x + z * weights[:, :, None, None])


class SqueezeNet(nn.Module):
    """A stem, three squeeze-and-excitation blocks and a classifier."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(SqueezeBlock(channels) for _ in range(3)))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 8, 8) to (N, 10)."""
        return self.head(self.blocks(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Mixer(nn.Module):
    """Patches of 2x2 pixels, six blocks of a depthwise and a pointwise convolution (ConvMixer: Trockman 2022)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(1, channels, 2, stride=2), nn.GELU(), nn.BatchNorm2d(channels))
        self.depthwise = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.GELU(), nn.BatchNorm2d(channels)
            )
            for _ in range(6)
        )
        self.pointwise = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.BatchNorm2d(channels)) for _ in range(6)
        )
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 8, 8) to (N, 10)."""
        z = self.patches(x)
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            z = pointwise(z + depthwise(z))
        return self.head(z.mean((2, 3)))


class Encoder(nn.Module):
    """Two layers of attention and feed-forward, the norms in front."""

    def __init__(self, width: int, *, causal: bool, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        mask = nn.Transformer.generate_square_subsequent_mask(length) if causal else None
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, positions, width)."""
        x = x + self.positions
        for layer in self.layers:
            x = layer(x, src_mask=self.mask)
        return self.norm(x)


class VisionTransformer(nn.Module):
    """Patches of 2x2 pixels of an 8x8 image, an encoder, a classifier of the mean."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.encoder = Encoder(width, causal=False, length=16)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 8, 8) to (N, 10)."""
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Transformer(nn.Module):
    """Characters, a causal encoder, and a score for every character at every position."""

    def __init__(self, characters: int = 65, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.encoder = Encoder(width, causal=True, length=LENGTH)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, positions) to (N, positions, characters)."""
        return self.head(self.encoder(self.embed(tokens)))


class Recurrent(nn.Module):
    """Characters, an LSTM, and a score for every character at every position."""

    def __init__(self, characters: int = 65, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 32)
        self.cell = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, positions) to (N, positions, characters)."""
        return self.head(self.cell(self.embed(tokens))[0])


TASKS: dict[str, Task] = {
    "digits, convnet": Task(convnet, images("digits"), 12),
    "digits, two heads": Task(TwoHeaded, two_headed, 12),
    "digits, SE-ResNet": Task(SqueezeNet, images("digits"), 12),
    "digits, ViT": Task(VisionTransformer, images("digits"), 24),
    # Thirteen convolutions in a row, of which six are depthwise: what random feedback is slow to learn.
    "digits, ConvMixer": Task(Mixer, images("digits"), 12),
    # Its errors shrink from layer to layer, and nothing in the model holds them up.
    "digits, eight convolutions": Task(eight_convolutions, images("digits"), 24, batch=32),
    "Fashion-MNIST, MLP": Task(mlp, images("fashion-mnist"), 3, batch=100),
    "Fashion-MNIST, two convolutions": Task(two_convolutions, images("fashion-mnist", 10000), 3),
    "Shakespeare, transformer": Task(Transformer, shakespeare(32000), 1, batch=32, nats=True),
    "Shakespeare, LSTM": Task(Recurrent, shakespeare(32000), 1, batch=32, nats=True),
}


def score(task: Task, net: nn.Module, test: Pair) -> float:
    """Test accuracy of the first output in per cent, or the loss in nats."""
    net.eval()
    inputs, targets = test
    with torch.no_grad():
        output = net(inputs)
    first = output[0] if isinstance(output, tuple) else output
    labels = targets[0] if isinstance(targets, tuple) else targets
    if task.nats:
        return float(nn.functional.cross_entropy(first.flatten(0, 1), labels.flatten()))
    return 100 * float((first.argmax(1) == labels).float().mean())
