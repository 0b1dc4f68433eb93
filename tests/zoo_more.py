"""Architectures that came later: a temporal convolution network, a variational autoencoder, latent queries, a scan."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from zoo_cases import CLASSES, LENGTH, VOCABULARY, Case, images, labels, rows, values, words
from zoo_large import hugging, logits, masked_words


class Temporal(nn.Module):
    """A temporal convolution network: causal, dilated, weight-normed, with shortcuts (Bai 2018)."""

    class Block(nn.Module):
        """Two convolutions that see the past alone, and a shortcut."""

        def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
            super().__init__()
            self.past = (2 * dilation, 0)
            self.one = parametrizations.weight_norm(nn.Conv1d(inputs, outputs, 3, dilation=dilation))
            self.two = parametrizations.weight_norm(nn.Conv1d(outputs, outputs, 3, dilation=dilation))
            self.short = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
            self.drop = nn.Dropout(0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.drop(torch.relu(self.one(F.pad(x, self.past))))
            y = self.drop(torch.relu(self.two(F.pad(y, self.past))))
            return torch.relu(y + self.short(x))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Temporal.Block(3, 5, 1), Temporal.Block(5, 5, 2))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(x)[:, :, -1])


class Variational(nn.Module):
    """A convolutional variational autoencoder; it draws its code while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Flatten())
        self.mean, self.spread = nn.Linear(64, 3), nn.Linear(64, 3)
        self.outside = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)))
        self.image = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.inside(x)
        mean, spread = self.mean(hidden), self.spread(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * spread).exp() if self.training else mean
        return self.image(self.outside(code)), mean, spread


def evidence(output: tuple[torch.Tensor, torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Squared distance of the image, and of the code's distribution from a normal one."""
    image, mean, spread = output
    return F.mse_loss(image, target) - 0.5 * torch.mean(1 + spread - mean.square() - spread.exp())


class Latents(nn.Module):
    """Queries of its own that read the input by cross attention, twice by the same layers (Jaegle 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, 8))
        self.embed = nn.Linear(4, 8)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)
        self.one, self.two = nn.LayerNorm(8), nn.LayerNorm(8)
        self.deep = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        latents = self.latents.expand(x.shape[0], -1, -1)
        for _ in range(2):
            latents = latents + self.cross(self.one(latents), x, x, need_weights=False)[0]
            latents = latents + self.deep(self.two(latents))
        return self.out(latents.mean(1))


class Scan(nn.Module):
    """Two layers of a selective state space model, whose scan is a loop of tensor code (Gu and Dao 2023)."""

    class Layer(nn.Module):
        """Gate, short depthwise convolution, and a state that the input decides how fast to forget."""

        def __init__(self, width: int, state: int) -> None:
            super().__init__()
            self.norm, self.state = nn.RMSNorm(width), state
            self.enter = nn.Linear(width, 4 * width)
            self.near = nn.Conv1d(2 * width, 2 * width, 3, padding=2, groups=2 * width)
            self.select = nn.Linear(2 * width, 2 * state + 1, bias=False)
            self.speed = nn.Linear(1, 2 * width)
            self.decay = nn.Parameter(torch.arange(1.0, state + 1).repeat(2 * width, 1).log())
            self.skip = nn.Parameter(torch.ones(2 * width))
            self.leave = nn.Linear(2 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, gate = self.enter(self.norm(x)).chunk(2, -1)
            y = F.silu(self.near(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
            speed, write, read = self.select(y).split([1, self.state, self.state], -1)
            speed, decay = F.softplus(self.speed(speed)), -self.decay.exp()
            state, made = y.new_zeros(y.shape[0], y.shape[2], self.state), []
            for t in range(y.shape[1]):
                kept = state * torch.exp(speed[:, t, :, None] * decay)
                state = kept + (speed[:, t] * y[:, t])[..., None] * write[:, t, None]
                made.append((state * read[:, t, None]).sum(-1))
            return x + self.leave((torch.stack(made, 1) + y * self.skip) * F.silu(gate))

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 4)
        self.layers = nn.Sequential(Scan.Layer(4, 2), Scan.Layer(4, 2))
        self.norm, self.head = nn.RMSNorm(4), nn.Linear(4, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layers(self.embed(tokens))))


distilbert = hugging(
    "DistilBertForSequenceClassification",
    "DistilBertConfig",
    vocab_size=VOCABULARY,
    dim=8,
    hidden_dim=12,
    n_layers=1,
    n_heads=2,
    max_position_embeddings=8,
    num_labels=CLASSES,
    dropout=0.0,
    attention_dropout=0.0,
    seq_classif_dropout=0.0,
)

MORE = (
    Case("temporal", Temporal, rows(3, 9), labels()),
    Case("variational", Variational, images(1, 8), values(1, 8, 8), evidence),
    Case("latents", Latents, rows(LENGTH, 4), labels()),
    Case("scan", Scan, words(), labels(LENGTH, classes=VOCABULARY)),
    Case("distilbert", distilbert, masked_words, labels(), logits=logits),
)
