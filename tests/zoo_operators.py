"""More of the zoo: one small model for every family of operators, in the form that `zoo.Case` gives them."""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from zoo import CLASSES, LENGTH, VOCABULARY, Case, floats, images, integers, labels, rows, values, words
from zoo_layers import (
    activations,
    conv1d_kinds,
    conv2d_padding,
    conv2d_transposed,
    conv3d_kinds,
    dropouts,
    norms_1d,
    norms_2d,
    padding_1d,
    padding_kinds,
    pooling_1d,
    pooling_2d,
    pooling_3d,
    reparametrised,
    stack,
    stacked,
    upsampling,
)


class Interpolated(nn.Module):
    """A pyramid: a coarse map is brought to the size of a fine one, and both are added."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(2, 3, 3, padding=1)
        self.coarse = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(3, 3, 3, padding=1)
        self.out = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.fine(x))
        coarse = torch.tanh(self.deep(torch.relu(self.coarse(fine))))
        up = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        near = F.interpolate(coarse, scale_factor=(1.0, 2.0), mode="nearest-exact", recompute_scale_factor=True)
        return self.out(fine + up) + near.mean((2, 3), keepdim=True)


class Unpooled(nn.Module):
    """Maximum pooling that returns its places, and the unpooling that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 3, 3, padding=1)
        self.inner = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, places = F.max_pool2d(torch.tanh(self.down(x)), 2, return_indices=True)
        return self.up(F.max_unpool2d(torch.tanh(self.inner(x)), places, 2))


class Noise(nn.Module):
    """Randomness written by hand: stochastic depth, Gaussian noise, a random mask, randomised ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.inner = nn.Linear(6, 6)
        self.slope = nn.RReLU()
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self.out(torch.tanh(self.first(x)))
        x = torch.tanh(self.first(x + 0.1 * torch.randn_like(x)))
        kept = torch.empty(x.shape[0], 1, dtype=x.dtype).bernoulli_(0.8)
        x = x + torch.tanh(self.inner(x)) * kept / 0.8
        return self.out(self.slope(x * (torch.rand_like(x) > 0.1)))


class Embeddings(nn.Module):
    """A padding index, a bag with offsets and weights, a one-hot product, frozen vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6, padding_idx=0)
        self.scaled = nn.Embedding(VOCABULARY, 6, scale_grad_by_freq=True)
        self.held = nn.Embedding.from_pretrained(torch.randn(VOCABULARY, 6))
        self.bag = nn.EmbeddingBag(VOCABULARY, 6, mode="sum")
        self.largest = nn.EmbeddingBag(VOCABULARY, 6, mode="max")
        self.table = nn.Parameter(torch.randn(VOCABULARY, 6))
        self.out = nn.Linear(6, CLASSES)

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        one = torch.tanh(self.words(tokens) + self.scaled(tokens) + self.held(tokens)).mean(1)
        bag = self.bag(tokens, per_sample_weights=weights) + self.largest(tokens)
        hot = F.one_hot(tokens[:, 0], VOCABULARY).to(weights.dtype) @ self.table
        return self.out(torch.tanh(one + bag + hot + self.table[tokens[:, 1]]))


class AttentionKinds(nn.Module):
    """Cross attention of other widths, causal and padding masks, biases of keys, the length first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.cross = nn.MultiheadAttention(8, 2, kdim=4, vdim=3, batch_first=True)
        self.causal = nn.MultiheadAttention(8, 4, dropout=0.1)
        self.biased = nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor, keys: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(x))
        x = x + self.cross(x, keys, keys[..., :3], key_padding_mask=hidden, need_weights=False)[0]
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        turned = x.transpose(0, 1)
        x = x + self.causal(turned, turned, turned, attn_mask=mask, is_causal=True)[0].transpose(0, 1)
        x = x + self.biased(x, x, x)[0]
        return self.out(x.mean(1))


class Rotary(nn.Module):
    """Attention in plain tensor code: rotary positions, fewer heads of keys, causal and float masks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.query = nn.Linear(8, 8, bias=False)
        self.keys = nn.Linear(8, 4, bias=False)
        self.values = nn.Linear(8, 4, bias=False)
        self.mix = nn.Linear(8, 8, bias=False)
        self.norm = nn.RMSNorm(8)
        self.head = nn.Linear(8, VOCABULARY)

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Rotates pairs of units by an angle that grows with the position."""
        length, width = x.shape[-2:]
        speed = 10000.0 ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
        angle = torch.outer(torch.arange(length, dtype=x.dtype), speed)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
        return torch.stack(turned, -1).flatten(-2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        normed = self.norm(x)
        query = self.turn(self.query(normed).unflatten(-1, (4, 2)).transpose(1, 2))
        keys = self.turn(self.keys(normed).unflatten(-1, (2, 2)).transpose(1, 2))
        values = self.values(normed).unflatten(-1, (2, 2)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        return self.head(x)


class MaskedAttention(nn.Module):
    """Fused attention with a bool mask and with a trainable float bias, and attention by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(4, 24)
        self.bias = nn.Parameter(torch.randn(2, LENGTH, LENGTH))
        self.query = nn.Parameter(torch.randn(2, 8, 4))
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        q, k, v = self.joint(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        first = F.scaled_dot_product_attention(q, k, v, attn_mask=kept[:, None, None])
        second = F.scaled_dot_product_attention(q, k, first, attn_mask=self.bias, scale=0.3)
        mixed = second.transpose(1, 2).flatten(2)
        scores = torch.einsum("btc,hcd->bhtd", mixed, self.query).softmax(2)
        return self.out(torch.einsum("bhtd,btc->bc", scores, mixed))


class Sequences(nn.Module):
    """A recurrent layer of any kind over a sequence, read at every position and at its end."""

    def __init__(self, cell: nn.Module, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.out = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.cell(x)[0]
        states = states if self.cell.batch_first else states.transpose(0, 1)
        return self.out(torch.tanh(states)).mean(1)


class Cells(nn.Module):
    """Recurrent cells called in a loop, with states that the caller gives."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNNCell(4, 5)
        self.lstm = nn.LSTMCell(5, 5)
        self.gru = nn.GRUCell(5, 5)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        one, (two, memory), three = state, (state, state), state
        for step in x.unbind(1):
            one = self.rnn(step, one)
            two, memory = self.lstm(one, (two, memory))
            three = self.gru(two, three)
        return self.out(three)


class Gated(nn.Module):
    """GLU, PReLU, a bilinear form, a temperature, a product of two trainable paths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 10)
        self.slope = nn.PReLU(5)
        self.norm = nn.RMSNorm(5)
        self.form = nn.Bilinear(5, 5, 6)
        self.gate, self.up, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)
        self.temperature = nn.Parameter(torch.tensor(0.7))
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.slope(F.glu(self.first(x))))
        x = torch.tanh(self.form(x, torch.tanh(x)))
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return self.out(x) * self.temperature.exp()


class Experts(nn.Module):
    """A mixture of experts with dense routing, and one that keeps the two best."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(7, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5)) for _ in range(3))
        self.second_router = nn.Linear(5, 3)
        self.weight = nn.Parameter(torch.randn(3, 5, 4))
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.router(x).softmax(-1)
        x = torch.tanh(sum(shares[:, k, None] * expert(x) for k, expert in enumerate(self.experts)))
        best, places = self.second_router(x).softmax(-1).topk(2, dim=-1)
        mixed = torch.einsum("bc,ecd->bed", x, self.weight)
        chosen = mixed.gather(1, places[..., None].expand(-1, -1, mixed.shape[-1]))
        return self.out(torch.tanh((best[..., None] * chosen).sum(1)))


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


OPERATORS = (
    stacked("conv1d_kinds", conv1d_kinds, 2, 12),
    stacked("conv2d_padding", conv2d_padding, 2, 6, 6),
    stacked("conv2d_transposed", conv2d_transposed, 2, 5, 5),
    stacked("conv3d_kinds", conv3d_kinds, 2, 3, 4, 4),
    stacked("padding_1d", padding_1d, 2, 9),
    stacked("padding_kinds", padding_kinds, 2, 3, 4, 4),
    stacked("upsampling", upsampling, 2, 5, 5),
    Case("interpolated", Interpolated, images(2, 6), labels(6, 6)),
    stacked("norms_1d", norms_1d, 2, 9),
    stacked("norms_2d", norms_2d, 2, 7, 7),
    stacked("pooling_1d", pooling_1d, 2, 12),
    stacked("pooling_2d", pooling_2d, 2, 8, 8),
    stacked("pooling_3d", pooling_3d, 1, 5, 5, 5),
    Case("unpooled", Unpooled, images(1, 6), labels(6, 6)),
    stacked("dropouts", dropouts, 2, 5, 5),
    Case("noise", Noise, rows(7), labels()),
    Case("embeddings", Embeddings, lambda n: (integers(VOCABULARY, n, LENGTH), floats(n, LENGTH)), labels()),
    Case(
        "attention_kinds",
        AttentionKinds,
        lambda n: (floats(n, LENGTH, 4), floats(n, 3, 4, seed=1), torch.tensor([[False, False, True]]).repeat(n, 1)),
        labels(),
    ),
    Case("rotary", Rotary, words(), labels(LENGTH, classes=VOCABULARY)),
    Case(
        "masked_attention",
        MaskedAttention,
        lambda n: (floats(n, LENGTH, 4), integers(2, n, LENGTH).bool() | torch.eye(n, LENGTH).bool()),
        labels(),
    ),
    Case(
        "rnn_deep", lambda: Sequences(nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True), 5), rows(3, 4), labels()
    ),
    Case(
        "lstm_both_ways",
        lambda: Sequences(nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True, proj_size=2), 4),
        rows(3, 4),
        labels(),
    ),
    Case("lstm_dropout", lambda: Sequences(nn.LSTM(4, 3, 2, batch_first=True, dropout=0.2), 3), rows(3, 4), labels()),
    Case(
        "gru_both_ways",
        lambda: Sequences(nn.GRU(4, 3, 2, bias=False, batch_first=True, bidirectional=True), 6),
        rows(3, 4),
        labels(),
    ),
    Case("cells", Cells, lambda n: (floats(n, 3, 4), floats(n, 5, seed=1)), labels()),
    Case("gated", Gated, rows(7), labels()),
    Case("experts", Experts, rows(7), labels()),
    stacked("parametrisations", reparametrised, 2, 5, 5),
    stacked("activations", activations, 5),
    Case("clip", Clip, lambda n: (floats(n, 7), integers(VOCABULARY, n, LENGTH)), torch.arange, clip_loss),
    Case("tensor_code", TensorCode, rows(7), labels()),
    Case("algebra", Algebra, rows(7), labels()),
    Case("messages", Messages, graph_inputs, labels()),
    Case("shared_deep", SharedDeep, rows(7), labels()),
    Case("frozen_parts", Frozen, rows(7), labels()),
    Case("detached", Detached, rows(7), labels(), two_losses),
    Case("scalar_loss", ScalarLoss, lambda n: (floats(n, 7), integers(CLASSES, n, seed=7)), itself_dummy, itself),
    Case("siamese", Siamese, siamese_inputs, labels()),
    Case("records", Records, record_inputs, labels(), record_loss),
    Case("values", lambda: stack(nn.Linear(7, 5), inputs=(7,)), rows(7), values(CLASSES), "smooth_l1"),
)

BY_NAME = {case.name: case for case in OPERATORS}
