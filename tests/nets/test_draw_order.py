"""One seed gives a net the random numbers of its model, wherever the model draws them."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

import altprop

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


class Noisy(nn.Module):
    """Draws inside its regions, and between them what no parameter feeds, as a stochastic depth does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.dropout(self.first(x), 0.5)
        h = h + F.dropout(self.second(h).tanh(), 0.3) * torch.rand(len(x), 1) + torch.poisson(h.detach().abs())
        return self.out(h + torch.rand(6))


def test_a_net_draws_in_the_order_of_its_model() -> None:
    model = Noisy()
    net = altprop.compile(model, "bp", example_inputs=(X,))
    twin = copy.deepcopy(model)
    torch.manual_seed(3)
    wanted = F.cross_entropy(twin(X), Y)
    wanted.backward()

    def agrees() -> bool:
        pairs = zip(model.parameters(), twin.parameters(), strict=True)
        found = all(torch.allclose(own.grad, other.grad, atol=1e-6) for own, other in pairs)
        model.zero_grad()
        return found

    torch.manual_seed(3)
    assert torch.allclose(net.backward(X, Y), wanted)
    assert agrees()
    torch.manual_seed(3)
    F.cross_entropy(net(X), Y).backward()
    assert agrees()
