"""Models of `zoo_operators` for code around layers: tensor code, sharing, freezing, losses inside, records."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from zoo_cases import CLASSES, VOCABULARY, floats, integers


class Clip(nn.Module):
    """Two towers, unit vectors, a trainable scale: the scores of every image with every text of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))
        self.text = nn.Sequential(nn.EmbeddingBag(VOCABULARY, 6), nn.Tanh(), nn.Linear(6, 5, bias=False))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        one, other = F.normalize(self.image(image), dim=-1), F.normalize(self.text(text), dim=-1)
        return self.scale.exp() * one @ other.t()


def clip_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over rows and over columns."""
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.t(), target)) / 2


class TensorCode(nn.Module):
    """Plain tensor code: writes into slices, rolls, sorts, cumulative sums, solves, distances, padding by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.second = nn.Linear(6, 6)
        self.third = nn.Linear(6, 4)
        self.centres = nn.Parameter(torch.randn(5, 4))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x)).clone()
        x[:, 0] = x[:, 1] * 2
        x[:, 2:4] += x[:, 4:]
        x = torch.sigmoid(self.second(torch.roll(x, 1, -1).flip(-1)))
        x = x.cumsum(-1).sort(-1, descending=True).values
        x = F.pad(self.third(x), (1, -1)).clamp(-1.5, 1.5)
        distance = torch.cdist(x, self.centres).pow(2)
        return self.out(torch.logsumexp(-distance.unsqueeze(1) * torch.eye(5, dtype=x.dtype), 1))


class Algebra(nn.Module):
    """Linear algebra on a batch of matrices: inverse, determinant, Cholesky factor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 9)
        self.out = nn.Linear(11, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = torch.tanh(self.first(x)).unflatten(-1, (3, 3))
        positive = matrix @ matrix.mT + torch.eye(3, dtype=x.dtype)
        factor = torch.linalg.cholesky(positive)
        solved = torch.linalg.solve(positive, factor)
        parts = [solved.flatten(1), torch.logdet(positive)[:, None], torch.linalg.norm(matrix, dim=(1, 2))[:, None]]
        return self.out(torch.cat(parts, 1))


class Messages(nn.Module):
    """Message passing over edges: gather, an edge network, and sums and means at the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.edge = nn.Linear(12, 5)
        self.out = nn.Linear(11, CLASSES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        source, target = edges
        message = torch.tanh(self.edge(torch.cat([x[source], x.index_select(0, target)], -1)))
        total = torch.zeros(x.shape[0], 5, dtype=x.dtype).index_add(0, target, message)
        largest = torch.zeros_like(total).scatter_reduce(0, target[:, None].expand(-1, 5), message, "amax")
        return self.out(torch.cat([x, total + largest], -1))


class SharedDeep(nn.Module):
    """One block with a norm called three times, and its first layer read once more with its weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.shared = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        for _ in range(3):
            x = x + self.shared(x)
        return self.out(torch.tanh(F.linear(x, self.shared[0].weight.t())))


class Frozen(nn.Module):
    """A frozen stem, a frozen part in the middle, a frozen bias, and layers that train before and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6).requires_grad_(False)
        self.first = nn.Linear(6, 6)
        self.middle = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()).requires_grad_(False)
        self.second = nn.Linear(6, 5)
        self.second.bias.requires_grad_(False)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(torch.tanh(self.stem(x))))
        return self.out(torch.tanh(self.second(self.middle(x))))


class Detached(nn.Module):
    """A probe that reads detached activities, and a target network behind `detach` that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.slow = nn.Linear(6, 6)
        self.probe = nn.Linear(6, CLASSES)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tanh(self.first(x))
        return self.out(x * torch.tanh(self.slow(x)).detach()), self.probe(x.detach())


def two_losses(output: tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of both outputs."""
    return F.cross_entropy(output[0], target) + F.cross_entropy(output[1], target)


class ScalarLoss(nn.Module):
    """A model that computes its own loss, and returns nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, CLASSES))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(x), target)


def itself(output: torch.Tensor, target: object) -> torch.Tensor:
    """The loss that the model has computed."""
    return output


def itself_dummy(batch: int) -> torch.Tensor:
    """A target that nothing reads."""
    return torch.zeros(batch)


class Siamese(nn.Module):
    """One tower called on two inputs, with a bool and an integer input beside them and one that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))
        self.kind = nn.Embedding(4, 5)
        self.out = nn.Linear(10, CLASSES)

    def forward(
        self, x: torch.Tensor, pair: dict[str, torch.Tensor], kept: torch.Tensor, extra: torch.Tensor | None = None
    ) -> torch.Tensor:
        one, other = self.tower(x), self.tower(pair["other"])
        other = torch.where(kept[:, None], other, torch.zeros_like(other))
        assert extra is None
        return self.out(torch.tanh(torch.cat([one - other, one * other + self.kind(pair["kind"])], -1)))


def siamese_inputs(batch: int) -> tuple[object, ...]:
    """Floats, a dictionary of floats and integers, and a bool for every sample."""
    pair = {"other": floats(batch, 7, seed=1), "kind": integers(4, batch, seed=2)}
    return floats(batch, 7), pair, integers(2, batch, seed=3).bool()


@dataclasses.dataclass
class Sample:
    """What `Records` takes."""

    features: torch.Tensor
    kind: torch.Tensor


@dataclasses.dataclass
class Prediction:
    """What `Records` returns."""

    scores: torch.Tensor
    hidden: torch.Tensor


class Records(nn.Module):
    """Takes a dataclass and returns one; the loss reads two of its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.kind = nn.Embedding(4, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, sample: Sample) -> Prediction:
        hidden = torch.tanh(self.first(sample.features) + self.kind(sample.kind))
        return Prediction(self.out(hidden), hidden)


def record_inputs(batch: int) -> tuple[Sample]:
    """One dataclass."""
    return (Sample(floats(batch, 7), integers(4, batch, seed=2)),)


def record_loss(output: Prediction, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and small hidden activities."""
    return F.cross_entropy(output.scores, target) + 0.01 * output.hidden.square().mean()


def graph_inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of nodes, and edges between them."""
    return floats(batch, 4), torch.stack([integers(2, 9, seed=1), integers(2, 9, seed=2)])
