"""The zoo's small models, written here: perceptrons, convolutions, recurrence, attention, sharing, several outputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from zoo_cases import CLASSES, LENGTH, VOCABULARY, labels, values


def mlp(activation: Callable[[], nn.Module], bias: bool = True, outputs: int = CLASSES) -> nn.Sequential:
    """Three layers, none square."""
    return nn.Sequential(
        nn.Linear(7, 9, bias=bias),
        activation(),
        nn.Linear(9, 5, bias=bias),
        activation(),
        nn.Linear(5, outputs, bias=bias),
    )


class ConvNet(nn.Module):
    """Two convolutions with batch norm, pooling and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.bn2 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4 * 3 * 3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        return self.fc(self.drop(torch.flatten(x, 1)))


class Residual(nn.Module):
    """A fully connected network with two skip connections, one of them over two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.c = nn.Linear(6, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.b(torch.tanh(self.a(x)))) + x
        x = torch.tanh(self.c(x) + x)
        return self.out(x)


class Branches(nn.Module):
    """Two branches of other widths and depths, joined by concatenation; one gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.left = nn.Linear(6, 4)
        self.right1 = nn.Linear(6, 8)
        self.right2 = nn.Linear(8, 5)
        self.gate = nn.Linear(6, 5)
        self.out = nn.Linear(9, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.stem(x))
        left = torch.tanh(self.left(x))
        right = F.relu(self.right2(torch.sigmoid(self.right1(x))))
        right = right * torch.sigmoid(self.gate(x))
        return self.out(torch.cat([left, right], 1))


class SharedTwice(nn.Module):
    """One layer called twice in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.shared = nn.Linear(6, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.shared(x))
        x = torch.tanh(self.shared(x))
        return self.out(x)


class TiedEmbedding(nn.Module):
    """A language model whose output weights are its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(self.embed(tokens))))


class Recurrent(nn.Module):
    """An embedding, a recurrent layer, and a classifier on the last state."""

    def __init__(self, kind: Callable[..., nn.Module], layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.cell = kind(6, 7, num_layers=layers, batch_first=True)
        self.out = nn.Linear(7, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(self.embed(tokens))
        return self.out(states[:, -1])


class Encoder(nn.Module):
    """torch's own transformer layer between an embedding and a mean."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True, norm_first=norm_first)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(self.embed(x)).mean(1))


class Attention(nn.Module):
    """`nn.MultiheadAttention` with a residual, once with its weights returned and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.one = nn.MultiheadAttention(8, 2, batch_first=True)
        self.two = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(x))
        x = x + self.one(x, x, x, need_weights=False)[0]
        x = x + self.two(x, x, x, need_weights=True)[0]
        return self.out(x[:, 0])


class BareParameters(nn.Module):
    """A class token, a table of positions, a scale and a bare matrix: parameters that no module owns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, LENGTH + 1, 6))
        self.scale = nn.Parameter(torch.rand(6) + 0.5)
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
        x = torch.tanh(x * self.scale)
        return self.out(torch.tanh(x @ self.matrix).mean(1))


class Reparametrised(nn.Module):
    """A weight norm, a normalised matrix, and a frozen gate that `torch.no_grad` holds back."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(7, 6))
        self.held = nn.Linear(6, 6).requires_grad_(False)
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        with torch.no_grad():
            gate = torch.sigmoid(self.held(x))
        x = torch.tanh((x * gate) @ (self.matrix / self.matrix.norm(dim=0)))
        return self.out(x)


class Outputs(nn.Module):
    """A stem and two heads; returns a tuple or a dict."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.scores = nn.Linear(6, CLASSES)
        self.value = nn.Linear(6, 2)
        self.named = named

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.tanh(self.stem(x))
        scores, value = self.scores(x), self.value(x)
        return {"scores": scores, "value": value} if self.named else (scores, value)


def tuple_loss(output: Any, target: Any) -> torch.Tensor:
    """Cross-entropy of the first output, and mean square of the second."""
    return F.cross_entropy(output[0], target[0]) + 0.5 * F.mse_loss(output[1], target[1])


def dict_loss(output: Any, target: Any) -> torch.Tensor:
    """The same, by name."""
    return tuple_loss((output["scores"], output["value"]), target)


def two_targets(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of the two heads."""
    return labels()(batch), values(2)(batch)


def conv_variety() -> nn.Module:
    """Stride, dilation, depthwise, asymmetric kernels, "same" and circular padding."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Tanh(),
        nn.Conv2d(4, 6, (1, 3), padding="same", groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 3, 3, padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * 4 * 4, CLASSES),
    )


def autoencoder() -> nn.Module:
    """A transposed convolution back to the input's size."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.Tanh(),
        nn.Conv2d(3, 1, 3, padding=1),
    )


def segmenter() -> nn.Module:
    """Dense prediction: one class a pixel."""
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.ReLU(), nn.Conv2d(5, CLASSES, 1))


def conv1d() -> nn.Module:
    """One dimension, average pooling."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(4, 3, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(9, 3),
    )


def conv3d() -> nn.Module:
    """Three dimensions, adaptive pooling."""
    return nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, CLASSES))


def token_features() -> nn.Module:
    """(B, T, C) inputs to Linear, with layer norm, and a score for every position."""
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, CLASSES))


def embedding_mean() -> nn.Module:
    """A bag of words."""
    return nn.Sequential(nn.EmbeddingBag(VOCABULARY, 6, mode="mean"), nn.Tanh(), nn.Linear(6, CLASSES))
