"""Operators at the edge: each equals autograd, or is refused in a sentence of ours."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from versions import TORCH

import altprop
from altprop.compiler.capture.foreign_draws import ForeignDraws
from altprop.compiler.run_passes import PassRunner
from altprop.ir.errors import CompileError, VerifyError
from altprop.ir.fakes import Fakes
from altprop.passes.tune.channels_last import is_dense
from altprop.rules.feedback.kind import units

X, Y = torch.randn(4, 8).double(), torch.tensor([0, 1, 2, 1])


class Between(nn.Module):
    """A layer, an operator, a layer."""

    def __init__(self, operator: Callable[[torch.Tensor], Any], width: int = 6) -> None:
        super().__init__()
        self.first, self.operator, self.last = nn.Linear(8, 6), operator, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.operator(self.first(x)))


def with_statistics(h: torch.Tensor) -> torch.Tensor:
    """A group norm whose mean and deviation are read too."""
    normed, mean, deviation = torch.native_group_norm(h, None, None, len(h), 6, 1, 2, 1e-5)
    return normed + mean[:, :1] * deviation[:, 1:]


def in_bags(h: torch.Tensor) -> torch.Tensor:
    """Bags of one embedding each, made of rows that are computed and weighed."""
    rows = torch.arange(len(h))
    return nn.functional.embedding_bag(rows, h, rows, mode="sum", per_sample_weights=h[:, 0])


@pytest.mark.parametrize(
    "operator",
    [
        in_bags,
        with_statistics,
        lambda h: torch.native_batch_norm(h, None, None, *h.new_ones(2, 6), True, 0.1, 1e-5)[0],
        lambda h: torch.nextafter(h, h + 1),
        lambda h: h @ torch.cov(h.T),
        lambda h: h @ torch.corrcoef(h.T),
        lambda h: h * torch.cov(h[:, 0], correction=0),
        lambda h: h @ torch.cov(h.T, fweights=torch.arange(1, len(h) + 1), aweights=h[:, 0].square()),
    ],
    ids=["bags", "group norm", "batch norm", "nextafter", "cov", "corrcoef", "cov of a row", "cov with weights"],
)
def test_defect_38_operators_equal_autograd(operator: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Between(operator).double()
    try:
        nn.functional.cross_entropy(model(X), Y).backward()
    except NotImplementedError as error:  # torch before 2.13 has no derivative of nextafter
        pytest.skip(str(error))
    expected = model.first.weight.grad
    model.zero_grad()
    net = altprop.compile(model, "bp", example_inputs=(X,))
    net.backward(X, Y)
    torch.testing.assert_close(model.first.weight.grad, expected, rtol=0, atol=1e-12)


def test_a_loss_in_chunks_is_taken_at_once() -> None:
    if not hasattr(nn.functional, "linear_cross_entropy"):
        pytest.skip("this torch has no linear_cross_entropy")

    class Chunked(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            options = nn.LinearCrossEntropyOptions(batch_chunk_size=len(x) // 2)
            return nn.functional.linear_cross_entropy(x, self.weight, Y, options=options)

    model = Chunked(8, 3, bias=False).double()
    net = altprop.compile(model, "bp", example_inputs=(X,), loss=lambda output, target: output)
    net.backward(X, Y)
    found = model.weight.grad
    model.zero_grad()
    model(X).backward()
    torch.testing.assert_close(found, model.weight.grad, rtol=0, atol=1e-12)


sizes_are_symbols = pytest.mark.skipif(
    TORCH < (2, 12), reason="torch before 2.12 binds these sizes, and steps are right"
)


@sizes_are_symbols
def test_defect_38_sizes_that_follow_the_batch_are_refused() -> None:
    model = Between(lambda h: torch.linalg.svdvals(h) * h, 6)
    with pytest.raises(CompileError, match=r"activity of \"first\" has the shape .* whose sizes follow the batch"):
        altprop.compile(model, "dfa", example_inputs=(torch.randn(9, 8),))


@sizes_are_symbols
def test_defect_38_sizes_that_fit_one_batch_alone_are_refused() -> None:
    model = Between(lambda h: torch.linalg.svdvals(h) * h[:, :4], 4)
    with pytest.raises(
        CompileError, match=r"has operators \(.*svd.*\) of which torch writes a derivative for a batch of"
    ):
        altprop.compile(model, "dfa", example_inputs=(X.float(),))


def test_defect_38_operators_that_bind_the_batch_are_named() -> None:
    with pytest.raises(CompileError, match=r"has operators \(.*cumprod.*\) of which torch writes a derivative for a"):
        altprop.compile(Between(lambda h: torch.cumprod(h, 0)), "bp", example_inputs=(X.float(),))


def test_defect_38_a_graph_that_breaks_a_law_is_our_fault() -> None:
    def broken() -> None:
        raise VerifyError("a region has no name.\n  line 3: region")

    with pytest.raises(CompileError, match="altprop has a fault: cut made a graph that breaks a law") as caught:
        PassRunner(ForeignDraws("the loss", ())).time("cut", broken)
    assert not isinstance(caught.value, VerifyError)
    assert "\n" not in str(caught.value)


def test_defect_42_a_result_that_a_mend_replaces_is_returned() -> None:
    """`rrelu` is written anew at capture, and the model returns it."""
    model = nn.Sequential(nn.Linear(8, 6), nn.RReLU())
    net = altprop.compile(model, "bp", example_inputs=(X.float(),), loss="mse")
    torch.manual_seed(0)
    output = net(X.float())
    torch.manual_seed(0)
    assert torch.equal(output, model(X.float()))


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.hsplit(x * self.weight, 2)


def test_defect_42_sizes_are_read_off_no_cotangent() -> None:
    """Halves of a batch: the trace counts the elements of what comes back."""
    model, x = Halves(), torch.randn(6)
    loss = lambda output, target: output[0].square().sum() + 3 * output[1].square().sum() + 0 * target.sum()  # noqa: E731
    net = altprop.compile(model, "bp", example_inputs=(x,), loss=loss)
    net.backward(x, torch.zeros(6))
    expected = 2 * (x[:3].square().sum() + 3 * x[3:].square().sum())
    torch.testing.assert_close(model.weight.grad, expected)


def test_defect_42_sizes_that_numbers_tell_are_not_dense() -> None:
    fakes = Fakes.fresh()
    with fakes.mode:
        found = torch.nonzero(torch.ones(3))
    assert not is_dense(found)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = torch.tanh(self.first(x))
        return {"a": self.a(h), "b": self.b(h)}


def two(output: dict[str, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output["a"], target) + output["b"].square().mean()


def test_defect_39_a_loss_of_several_outputs_has_no_local_prediction() -> None:
    with pytest.raises(CompileError, match="asks what the loss says of one prediction, and the model returns several"):
        altprop.compile(Named(), "local_loss", example_inputs=(X.float(),), loss=two).backward(X.float(), Y)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, "N", 3), "use batch_first=True"),
        (("4*N", 3), "in the place of flattened scores"),
        ((34, 4), "pass the nodes as the batch"),
    ],
)
def test_defect_39_what_to_do_without_a_batch_in_front(shape: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        units(shape)


def test_defect_39_rules_that_are_not_listed_are_not_offered() -> None:
    with pytest.raises(CompileError, match='there is no rule "hebian"') as caught:
        altprop.rules.get("hebian")
    assert "hebbian" not in str(caught.value)


def gaussian(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss of means and variances, which looks whether some variance is below zero."""
    return torch.nn.functional.gaussian_nll_loss(output[:, :1], target, output[:, 1:].exp())


def test_defect_38_a_loss_that_checks_values_equals_autograd() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(5, 3).double(), torch.randn(5, 1).double()
    net = altprop.compile(copy.deepcopy(model), "bp", loss=gaussian)
    net.backward(x, y)
    gaussian(model(x), y).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(net.model.get_parameter(name).grad, parameter.grad, atol=1e-12)


def test_defect_38_an_activation_of_two_results_has_a_derivative() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.LogSigmoid()).double()
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    net = altprop.compile(copy.deepcopy(model), "bp", loss=nn.MSELoss())
    net.backward(x, y)
    nn.functional.mse_loss(model(x), y).backward()
    assert torch.allclose(net.model[0].weight.grad, model[0].weight.grad, atol=1e-12)


class Solves(nn.Module):
    """A layer, and a least-squares problem behind it, whose rank only its numbers tell."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The solutions."""
        return torch.linalg.lstsq(self.layer(x), x).solution


def test_defect_38_operators_that_cannot_be_traced_are_told_in_words_of_ours() -> None:
    with pytest.raises(altprop.CompileError, match=r"linalg\.pinv for linalg\.lstsq") as told:
        altprop.compile(Solves(), "bp", example_inputs=(torch.randn(5, 3),))
    assert "aten" not in str(told.value)


class Normed(nn.Module):
    """A norm without parameters behind an activation: it belongs to what follows the activity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x).relu()))


@pytest.mark.parametrize("rule", ["bp", "dfa"])
def test_defect_42_running_statistics_behind_an_activation_are_renewed(rule: str) -> None:
    torch.manual_seed(0)
    model = Normed().double()
    net = altprop.compile(copy.deepcopy(model), rule, example_inputs=(X,))
    nn.functional.cross_entropy(model(X), Y).backward()
    nn.functional.cross_entropy(net(X), Y).backward()
    assert torch.allclose(net.model.norm.running_mean, model.norm.running_mean, atol=1e-12)
    assert torch.allclose(net.model.norm.running_var, model.norm.running_var, atol=1e-12)
    assert torch.allclose(net.model.last.weight.grad, model.last.weight.grad, atol=1e-12)
    assert rule == "dfa" or torch.allclose(net.model.first.weight.grad, model.first.weight.grad, atol=1e-12)
