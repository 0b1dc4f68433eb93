"""The forward of a net draws what the model would have drawn under the same seed."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.third


class Draws(nn.Module):
    """Something random between two layers."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(16, 16), nn.Linear(16, 5), function

    def forward(self, x):
        return self.last(self.function(self.first(x))).mean(1)


class Attends(nn.Module):
    """Attention by hand, as `nn.MultiheadAttention` calls it."""

    def __init__(self, weights, mask):
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(16, 4), nn.Linear(16, 5)
        self.weights, self.mask = weights, mask

    def forward(self, x):
        x, own = x.transpose(0, 1), self.attention
        length, batch = x.shape[:2]
        mask = torch.linspace(-1, 1, length * length).view(length, length)
        mask = mask if self.mask == 2 else mask.expand(batch * 4, length, length)
        made = functional.multi_head_attention_forward(
            x, x, x, 16, 4, own.in_proj_weight, own.in_proj_bias, None, None, False, 0.5, own.out_proj.weight,
            own.out_proj.bias, training=True, need_weights=self.weights, attn_mask=mask,
        )[0]  # fmt: skip
        return self.last(made).mean(0)


def turned(function):
    return lambda x: function(x.transpose(1, 2)).transpose(1, 2)


FUNCTIONS = {
    "normal": lambda x: x + torch.normal(x, 1 + x * x).detach(),
    "normal, turned": lambda x: x + turned(lambda x: torch.normal(x, 1 + x * x))(x).detach(),
    "dropout, turned": turned(lambda x: functional.dropout(x, 0.5)),
    "dropout in place, turned": turned(lambda x: functional.dropout(x.tanh(), 0.5, inplace=True)),
    "alpha dropout, turned": turned(lambda x: functional.alpha_dropout(x, 0.5, True)),
    "mask, turned": turned(lambda x: x * torch.empty_like(x).bernoulli_(0.5)),
    "mask of chances, turned": turned(lambda x: x * torch.empty_like(x).bernoulli_(torch.sigmoid(x))),
    "torch.bernoulli, turned": turned(lambda x: x * torch.bernoulli(x, 0.5)),
    "images": lambda x: functional.alpha_dropout(
        x.view(-1, 7, 4, 4).to(memory_format=torch.channels_last), 0.5, True
    ).reshape(-1, 7, 16),
}  # fmt: skip
MODELS = {name: lambda f=function: Draws(f) for name, function in FUNCTIONS.items()}
MODELS |= {f"attention, {w}, {m}": lambda w=w, m=m: Attends(w, m) for w in (True, False) for m in (2, 3)}


@pytest.mark.parametrize("name", MODELS)
def test_defect_16_the_forward_draws_as_the_model_does(name):
    torch.manual_seed(1)
    model, x = MODELS[name](), torch.randn(6, 7, 16)
    net = altprop.compile(model, "bp", example_inputs=(x,))
    torch.manual_seed(0)
    wanted = model(x)
    torch.manual_seed(0)
    assert torch.equal(net(x), wanted)
