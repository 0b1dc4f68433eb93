"""Models of `zoo_operators` for interpolation, noise, embeddings, attention, recurrence and gates."""

import torch
from torch import nn
from torch.nn import functional as F
from zoo_cases import CLASSES, LENGTH, VOCABULARY


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
