"""What models return beside scores, and how losses read it: learned from, or refused in a sentence."""

import copy
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.ir.errors import CompileError

pytestmark = pytest.mark.third


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients_equal(
    model: nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, target: Any, sizes: tuple[int, ...]
) -> None:
    """By `bp` all gradients are autograd's, at several sizes of the batch."""
    model = model.double()
    net = kept.compile(copy.deepcopy(model), "bp", loss=loss, example_inputs=(inputs,))
    for size in sizes:
        model.zero_grad()
        net.zero_grad()
        expected = loss(model(inputs[:size]), target[:size])
        expected.backward()
        found = net.backward(inputs[:size], target[:size])
        torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-10)
        for own, other in zip(model.parameters(), net.model.parameters(), strict=True):
            torch.testing.assert_close(other.grad, own.grad, rtol=1e-10, atol=1e-10)


class Returns(nn.Module):
    """Two layers, and something beside their scores."""

    def __init__(self, more: Callable[["Returns", torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.more = nn.Linear(5, 4), nn.Linear(4, 3), more

    def forward(self, x: torch.Tensor) -> Any:
        """(N, 5) to (N, 3) and more."""
        return self.b(torch.tanh(self.a(x))), self.more(self, x)


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
@pytest.mark.parametrize(
    "more",
    [
        lambda model, x: model.a.weight,
        lambda model, x: model.a.weight.abs().sum(),
        lambda model, x: sum(p.pow(2).sum() for p in model.parameters()),
    ],
)
def test_a_result_of_parameters_alone_is_refused(more: Any, rule: str) -> None:
    loss = lambda output, target: functional.mse_loss(output[0], target) + output[1].abs().sum()  # noqa: E731
    with pytest.raises(CompileError, match=r"the model returns a value that is made of a\..* alone: no region"):
        altprop.compile(Returns(more).double(), rule, loss=loss, example_inputs=(drawn(4, 5),))


def test_a_detached_parameter_may_be_returned() -> None:
    loss = lambda output, target: functional.mse_loss(output[0], target)  # noqa: E731
    gradients_equal(Returns(lambda model, x: model.a.weight.detach().norm()), loss, drawn(6, 5), drawn(6, 3), (6, 3))


def test_a_loss_reads_a_mask_that_the_model_returns() -> None:
    def loss(output: Any, target: torch.Tensor) -> torch.Tensor:
        scores, mask = output
        return ((scores - target) ** 2 * mask.unsqueeze(1)).sum() / target.shape[0]

    model = Returns(lambda model, x: x[:, 0] > 0)
    gradients_equal(model, loss, drawn(6, 5), drawn(6, 3), (6, 3))
    net = kept.compile(copy.deepcopy(model).double(), "dfa", loss=loss, example_inputs=(drawn(4, 5),))
    net.backward(drawn(3, 5), drawn(3, 3))
    assert all(p.grad.abs().sum() > 0 and type(p.grad) is torch.Tensor for p in net.model.parameters())


def test_a_scalar_beside_scores_is_named_where_direct_feedback_cannot_use_it() -> None:
    class Quantized(nn.Module):
        """A VQ-VAE."""

        def __init__(self) -> None:
            super().__init__()
            self.e, self.book, self.d = nn.Linear(6, 4), nn.Embedding(7, 4), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> Any:
            """(N, 6) to (N, 6) and the loss of the code book."""
            z = torch.tanh(self.e(x))
            q = self.book(torch.cdist(z, self.book.weight).argmin(1))
            inner = functional.mse_loss(q, z.detach()) + 0.25 * functional.mse_loss(q.detach(), z)
            return self.d(z + (q - z).detach()), inner

    loss = lambda output, target: functional.mse_loss(output[0], target) + output[1]  # noqa: E731
    torch.manual_seed(0)
    model = Quantized()
    gradients_equal(model, loss, drawn(6, 6), drawn(6, 6), (6,))
    with pytest.raises(CompileError, match="the model returns a scalar, which holds no error for each sample"):
        altprop.compile(model, "dfa", loss=loss, example_inputs=(drawn(4, 6),))


class Gated(nn.Module):
    """A threshold that is a parameter, and a choice of a row by the largest score."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.score, self.rows, self.o = nn.Linear(5, 6), nn.Linear(5, 4), nn.Embedding(4, 6), nn.Linear(6, 3)
        self.threshold = nn.Parameter(torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 5) to (N, 3)."""
        h = self.a(x)
        h = torch.where(h > self.threshold, h, 0.1 * h) + self.rows(self.score(x).argmax(-1))
        return self.o(h)


@pytest.mark.parametrize("rule", ["bp", "dfa"])
def test_parameters_behind_comparisons_and_indices_are_named(rule: str) -> None:
    said = r"(?=.*threshold)(?=.*score\.weight)(?=.*score\.bias).* reach what the model returns through comparisons or"
    with pytest.raises(CompileError, match=said):
        altprop.compile(Gated(), rule, example_inputs=(drawn(4, 5).float(),))
    model = Gated()
    model.score.requires_grad_(False)
    with pytest.raises(CompileError, match=r"^threshold reaches what the model returns"):
        altprop.compile(model, rule, example_inputs=(drawn(4, 5).float(),))


def test_with_them_frozen_it_learns() -> None:
    model = Gated()
    model.score.requires_grad_(False)
    model.threshold.requires_grad_(False)
    model = model.double()
    net = kept.compile(copy.deepcopy(model), "bp", loss="mse", example_inputs=(drawn(4, 5),))
    functional.mse_loss(model(drawn(4, 5)), drawn(4, 3)).backward()
    net.backward(drawn(4, 5), drawn(4, 3))
    for own, other in zip(model.parameters(), net.model.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        if own.grad is not None:
            torch.testing.assert_close(other.grad, own.grad, rtol=1e-10, atol=1e-10)


class Flattened(nn.Module):
    """Scores of all positions in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.e, self.f, self.o = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 5) to (N * 5, 11)."""
        return self.o(torch.tanh(self.f(self.e(x)))).view(-1, 11)


def test_scores_of_positions_may_be_flattened() -> None:
    x = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(0))
    y = torch.randint(11, (20,), generator=torch.Generator().manual_seed(1))
    model = Flattened().double()
    net = kept.compile(copy.deepcopy(model), "bp", example_inputs=(x,))
    functional.cross_entropy(model(x), y).backward()
    net.backward(x, y)
    for own, other in zip(model.parameters(), net.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, own.grad, rtol=1e-10, atol=1e-10)
    net.backward(x[:2], y[:10])
    with pytest.raises(ValueError, match="the target has a batch of 4, the input one of 4"):
        net.backward(x, y[:4])
    with pytest.raises(CompileError, match=r"an error of the shape \('5\*N', 11\) has no batch in front"):
        altprop.compile(model, "dfa", example_inputs=(x,))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.SiLU(), nn.Mish()])
def test_standardised_filters_go_with_norms_and_gates(norm: nn.Module) -> None:
    """The derivative of a standard deviation writes into a tensor of its own."""

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.c, self.norm, self.o = nn.Conv2d(2, 4, 3), norm, nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(N, 2, 5, 5) to (N, 3)."""
            w = self.c.weight
            h = functional.conv2d(x, w / w.std((1, 2, 3), keepdim=True))
            return self.o(self.norm(h).mean((2, 3)))

    model = Standardised()
    model.c.bias = None
    gradients_equal(model, functional.mse_loss, drawn(6, 2, 5, 5), drawn(6, 3), (6, 3))


def test_the_mean_over_a_batch_is_a_mean() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(1))
    gradients_equal(model, nn.KLDivLoss(reduction="batchmean"), drawn(6, 5), drawn(6, 3).softmax(1), (6, 3))


def test_a_loss_may_be_made_of_a_distribution() -> None:
    def nll(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -torch.distributions.Normal(output[:, :2], output[:, 2:].exp()).log_prob(target).sum(1).mean()

    before = torch.distributions.Distribution._validate_args
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4))
    gradients_equal(model, nll, drawn(6, 5), drawn(6, 2), (6, 3))
    assert torch.distributions.Distribution._validate_args is before


def test_a_loss_that_chooses_by_values_is_named() -> None:
    def ctc(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        lengths = torch.full((output.shape[0],), 6), torch.full((output.shape[0],), 2)
        return functional.ctc_loss(output.log_softmax(2).transpose(0, 1), target, *lengths)

    net = kept.compile(nn.Linear(5, 4), "bp", loss=ctc, example_inputs=(torch.randn(4, 6, 5),))
    with pytest.raises(CompileError, match=r"the loss ctc chooses by the values that it is given.*behind net\(x\)"):
        net.backward(torch.randn(4, 6, 5), torch.randint(1, 4, (4, 2)))
    ctc(net(torch.randn(4, 6, 5)), torch.randint(1, 4, (4, 2))).backward()
    assert net.model.weight.grad is not None
