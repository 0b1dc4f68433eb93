"""The nets of the table of step files, and their batches."""

from collections.abc import Callable

import torch
from torch import nn

from altprop import models

BATCH = 8


class Depthwise(nn.Sequential):
    """Two depthwise convolutions, each with one of a single pixel."""

    def __init__(self) -> None:
        def block(inner: int, outer: int, stride: int) -> list[nn.Module]:
            each = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
            return [each, nn.BatchNorm2d(inner), nn.ReLU6(), nn.Conv2d(inner, outer, 1), nn.ReLU6()]

        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU6(),
            *block(8, 16, 2),
            *block(16, 32, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class Block(nn.Module):
    """A layer of a transformer that reads from the left alone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, time, width) to the same."""
        batch, length, width = x.shape
        parts = self.attend(self.norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(nn.functional.gelu(self.widen(self.norm_inner(x))))


class SmallGPT(nn.Module):
    """Two layers over sixteen tokens of thirty."""

    def __init__(self, words: int = 30, length: int = 16, width: int = 32) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(words, width), nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.head = nn.Linear(width, words)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens (batch, time) to scores (batch, time, words)."""
        return self.head(self.blocks(self.token(tokens) + self.place))


class Recurrent(nn.Module):
    """An LSTM of one layer, whose last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, time, 8) to scores."""
        return self.head(self.lstm(x)[0][:, -1])


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: models.build("mlp", (1, 8, 8)), (1, 8, 8)),
    "convnet": (lambda: models.build("convnet", (1, 8, 8)), (1, 8, 8)),
    "depthwise": (Depthwise, (1, 8, 8)),
    "lstm": (Recurrent, (6, 8)),
    "small GPT": (SmallGPT, (16,)),
    "resnet20": (lambda: models.build("resnet20", (3, 16, 16)), (3, 16, 16)),
}


def batch_of(
    name: str, seed: int, batch: int = BATCH, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a batch; images and signals are of a type."""
    generator, shape = torch.Generator().manual_seed(seed), (batch, *NETS[name][1])
    if name == "small GPT":
        words = torch.randint(30, (2, *shape), generator=generator)
        return words[0], words[1]
    return torch.randn(shape, generator=generator).to(dtype), torch.randint(10, (batch,), generator=generator)
