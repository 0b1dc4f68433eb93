"""The networks that are timed: what most people train, small enough for a processor."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from altprop import models


@dataclasses.dataclass(frozen=True)
class Work:
    """A network and its batch.

    Attributes:
        make: makes the network.
        inputs: makes a batch's inputs.
        target: makes a batch's target.
        repeats: steps that are timed together.
        options: of the rules with direct feedback, as they are written in text, such as "kind='channel'".
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    target: Callable[[], torch.Tensor]
    repeats: int = 1
    options: str = ""

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, with the classes last or, of images, first."""
        flat = output.flatten(0, 1) if output.dim() == 3 else output
        return functional.cross_entropy(flat, target.flatten() if output.dim() == 3 else target)


class Attention(nn.Module):
    """A block of a transformer: norm, attention, norm, two layers."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm, self.norm_two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes and returns (samples, positions, width)."""
        parts = self.projections(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        attended = functional.scaled_dot_product_attention(*parts, is_causal=self.causal)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        made: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm_two(x))))
        return made


class GPT(nn.Module):
    """A small language model over characters."""

    def __init__(self, layers: int = 4, width: int = 256, heads: int = 8, length: int = 128) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(CHARACTERS, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Attention(width, heads, causal=True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CHARACTERS, bias=False)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Returns scores (samples, positions, characters)."""
        x = self.token(text) + self.position(torch.arange(text.shape[1], device=text.device))
        scores: torch.Tensor = self.head(self.norm(self.blocks(x)))
        return scores


class ViT(nn.Module):
    """A small vision transformer: patches of 4 x 4, the mean of what it makes of them."""

    def __init__(self, layers: int = 4, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.blocks = nn.Sequential(*(Attention(width, heads, causal=False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Takes images of 32 x 32."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        scores: torch.Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


class LSTM(nn.Module):
    """Two recurrent layers over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 32)
        self.cell = nn.LSTM(32, 256, 2, batch_first=True)
        self.out = nn.Linear(256, CHARACTERS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Returns scores (samples, positions, characters)."""
        scores: torch.Tensor = self.out(self.cell(self.embed(text))[0])
        return scores


class GCN(nn.Module):
    """Two graph convolutions on a graph as large as Cora: 2708 nodes of 1433 words, 13264 edges with loops."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1433, 16), nn.Linear(16, 7)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Returns scores (nodes, classes)."""
        x = torch.relu(_spread(self.first(x), edges, weights))
        return _spread(self.second(x), edges, weights)


def _spread(x: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]] * weights[:, None])


def graph() -> tuple[torch.Tensor, ...]:
    """Features, edges and their weights."""
    return (torch.rand(2708, 1433) < 0.0127).float(), torch.randint(2708, (2, 13264)), torch.rand(13264) * 0.4


class UNet(nn.Module):
    """Two levels down and up, with skips, for images of 32 x 32."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = _pair(3, width), _pair(width, 2 * width), _pair(2 * width, 4 * width)
        self.up_middle, self.up_fine = (nn.ConvTranspose2d(n, n // 2, 2, stride=2) for n in (4 * width, 2 * width))
        self.join_middle, self.join_fine = _pair(4 * width, 2 * width), _pair(2 * width, width)
        self.scores = nn.Conv2d(width, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns scores of 4 classes at each pixel."""
        fine = self.fine(images)
        middle = self.middle(functional.max_pool2d(fine, 2))
        coarse = self.coarse(functional.max_pool2d(middle, 2))
        middle = self.join_middle(torch.cat([middle, self.up_middle(coarse)], 1))
        scores: torch.Tensor = self.scores(self.join_fine(torch.cat([fine, self.up_fine(middle)], 1)))
        return scores


def _pair(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
        *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
    )


def torchvision_model(name: str, **options: float) -> nn.Module:
    """One of torchvision's models; only the definition is wanted, so its own operators are declared."""
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou) -> Tensor")
    from torchvision import models as made  # after the declarations

    model: nn.Module = getattr(made, name)(**options)
    return model


def mobilenet() -> nn.Module:
    """MobileNetV2 at a quarter of its width."""
    return torchvision_model("mobilenet_v2", num_classes=10, width_mult=0.25)


def resnet50() -> nn.Module:
    """ResNet-50, for 1000 classes."""
    return torchvision_model("resnet50")


CHARACTERS = 65


def images(batch: int, size: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Returns what makes images of three channels."""
    return lambda: (torch.randn(batch, 3, size, size),)


def texts(batch: int, length: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Returns what makes characters."""
    return lambda: (torch.randint(CHARACTERS, (batch, length)),)


def classes(*shape: int, count: int = 10) -> Callable[[], torch.Tensor]:
    """Returns what makes targets."""
    return lambda: torch.randint(count, shape)


def _mlp(batch: int, repeats: int) -> Work:
    model = "mlp", (1, 28, 28)
    return Work(lambda: models.build(*model), lambda: (torch.randn(batch, 1, 28, 28),), classes(batch), repeats)


def _resnet(batch: int, repeats: int) -> Work:
    return Work(lambda: models.build("resnet20", (3, 32, 32)), images(batch, 32), classes(batch), repeats)


WORKS: dict[str, Work] = {
    "MLP 784-5x256-10, batch 128": _mlp(128, 20),
    "MLP 784-5x256-10, batch 8": _mlp(8, 40),
    "MLP 784-5x256-10, batch 1024": _mlp(1024, 5),
    "ResNet-20, batch 64": _resnet(64, 1),
    "ResNet-20, batch 8": _resnet(8, 4),
    "GCN, as large as Cora": Work(GCN, graph, classes(2708, count=7), 4),
    "ViT of 4 x 128, batch 32": Work(ViT, images(32, 32), classes(32), 1),
    "MobileNetV2 x 0.25, 64 x 64, batch 16": Work(mobilenet, images(16, 64), classes(16), 1, "kind='channel'"),
    "U-Net of 16, 32 x 32, batch 16": Work(UNet, images(16, 32), classes(16, 32, 32, count=4), 1),
    "U-Net of 16, batch 16, feedback by channel": Work(
        UNet, images(16, 32), classes(16, 32, 32, count=4), 1, "kind='channel'"
    ),
    "GPT of 4 x 256, 8 x 128 tokens": Work(GPT, texts(8, 128), classes(8, 128, count=CHARACTERS), 1),
    "LSTM 2 x 256, 32 x 32 characters": Work(LSTM, texts(32, 32), classes(32, 32, count=CHARACTERS), 1),
}

# Larger ones, which not all benchmarks take.
LARGE: dict[str, Work] = {
    "ResNet-50, 224 x 224, batch 4": Work(resnet50, images(4, 224), classes(4, count=1000), 1, "kind='channel'"),
}
