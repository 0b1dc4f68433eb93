"""Models that cannot be captured are refused in one sentence each."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils import checkpoint
from versions import TORCH

import altprop


class Energy(nn.Module):
    """Returns the derivative of an energy with respect to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.requires_grad_(True)
        return torch.autograd.grad(self.second(torch.tanh(self.first(x))).sum(), x, create_graph=True)[0]


class Packed(nn.Module):
    """An LSTM over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.out(self.cell(packed)[1][0][-1])


class Checkpointed(nn.Module):
    """A layer whose activities are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 5), nn.Linear(5, 3)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(checkpoint.checkpoint(self.layer, x, use_reentrant=self.reentrant))

    def layer(self, x: torch.Tensor) -> torch.Tensor:
        """The part that is computed twice."""
        return torch.tanh(self.first(x))


def embedding(**options: object) -> nn.Module:
    """An embedding and a layer."""
    return nn.Sequential(nn.Embedding(5, 4, **options), nn.Flatten(), nn.Linear(12, 3))


def averaging() -> nn.Module:
    """A batch norm that averages over all batches."""
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 3))


class Listed(nn.Module):
    """Takes numbers out of a tensor, by a function of the caller's."""

    def __init__(self, take: Callable[[torch.Tensor], float]) -> None:
        super().__init__()
        self.layer, self.take = nn.Linear(4, 3), take

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.take(x)


class Labels(nn.Module):
    """Returns classes, not their scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).argmax(1)


class Selected(nn.Module):
    """Reads what a mask selects, by an operator whose derivative torch writes for one batch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.first(x))
        return self.second(torch.masked_select(z, z > 0).sum() * z)


def unset() -> nn.Module:
    """A layer that was never initialised."""
    model = nn.Linear(4, 3)
    nn.init.constant_(model.bias, float("nan"))
    return model


class Spectrum(nn.Module):
    """Computes complex numbers from what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 6), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.fft.rfft(self.layer(x)).abs())


ROWS = (torch.ones(4, 4),)
WORDS = (torch.ones(4, 3, dtype=torch.int64),)
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], str]] = {
    "double_backward": (Energy, ROWS, r"Energy cannot be captured at .*derivative of a derivative"),
    "packed": (Packed, (torch.ones(4, 3, 4), torch.tensor([3, 2, 1, 3])), r'"cell" \(LSTM\).* pad the sequences'),
    "checkpoint": (lambda: Checkpointed(True), ROWS, r"use use_reentrant=False"),
    "sparse": (lambda: embedding(sparse=True), WORDS, r'module "0" \(Embedding\) has sparse gradients'),
    "max_norm": (lambda: embedding(max_norm=1.0), WORDS, r'module "0" \(Embedding\) rescales its own weight'),
    "tolist": (
        lambda: Listed(lambda x: x[:, 0].tolist()[0]),
        ROWS,
        r"Python number at .*test_refusals.*tolist\(\).*keep it a tensor",
    ),
    "item": (lambda: Listed(lambda x: x.sum().item()), ROWS, r"Python number at .*item\(\).*keep it a tensor"),
    "integers": (Labels, ROWS, r"the model returns int64, and no loss has a gradient there"),
    "selected": (
        Selected,
        ROWS,
        r'region "first" has operators \(.*masked_select.*\) of which torch writes a derivative for a batch of 4 alone',
    ),
    "unset": (unset, ROWS, r"parameter bias holds NaN or infinity"),
    "infinite": (
        lambda: nn.Linear(4, 3).apply(lambda m: nn.init.constant_(m.weight, -float("inf"))),
        ROWS,
        r"weight holds",
    ),
    "complex_input": (
        lambda: nn.Linear(4, 3),
        (ROWS[0].to(torch.complex64),),
        r"an input is complex: use real tensors",
    ),
    "complex_parameter": (lambda: nn.Linear(4, 3, dtype=torch.complex64), ROWS, r"weight is complex: use real tensors"),
    "complex_inside": (Spectrum, ROWS, r"computes complex numbers .* keep the real and the imaginary part"),
    "one_sample": (lambda: nn.Linear(4, 3), (ROWS[0][:1],), r"have a batch of 1, .* give a batch of two or more"),
    "no_sample": (lambda: nn.Linear(4, 3), (ROWS[0][:0],), r"have no samples, .* give a batch of two or more"),
    "momentum": (averaging, ROWS, r'module "1" \(BatchNorm1d\) averages over all batches .* give a momentum'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str) -> None:
    build, inputs, message = REFUSED[name]
    with pytest.raises(altprop.CompileError, match=message):
        altprop.compile(build(), "bp", example_inputs=inputs)
    report = altprop.examine(build(), inputs)
    findings = {finding.level for finding in report.findings if re.search(message, finding.what)}
    assert findings == {"warning" if name == "selected" else "error"}  # rules that read no derivative train it


def test_checkpoints_without_reentry_compile() -> None:
    net = altprop.compile(Checkpointed(False), "dfa", example_inputs=ROWS)
    assert {row.parameter for row in net.explain().rows} == set(dict(net.model.named_parameters()))


class ByPath(nn.Module):
    """A layer that goes a way of its own: `path` chooses what forward does beside it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.layer, self.path, self.passes = nn.Linear(6, 3), path, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.path == "data":
            self.layer.weight.data.clamp_(-1, 1)
        if self.path == "rows":
            return torch.stack([self.layer(row) for row in x])
        if self.path == "passes":
            self.passes += 1
        y = self.layer(x)
        if self.path == "kept":
            self.kept = y
        return y


def by_path(path: str) -> altprop.LocalNet:
    return altprop.compile(ByPath(path), "dfa", example_inputs=(torch.randn(4, 6),))


@pytest.mark.skipif(TORCH < (2, 10), reason="torch 2.9 crashes itself where a forward assigns to what is in `.data`")
def test_what_passes_by_the_tracer_is_named() -> None:
    with pytest.raises(altprop.CompileError, match=r"ByPath cannot be captured: forward reads or assigns `\.data`"):
        by_path("data")


def test_a_loop_over_the_samples_takes_one_size_of_batch() -> None:
    net = by_path("rows")
    net.backward(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(altprop.CompileError, match=r"captured on a batch of 4, and runs other layers on one of 5"):
        net.backward(torch.randn(5, 6), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("path", "message"),
    [("passes", r"the forward assigns passes: the program has"), ("kept", r"attribute self\.kept was assigned")],
)
def test_attributes_are_what_they_were_before_the_capture(path: str, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        net = by_path(path)
    assert net.model.passes == 0
    assert not hasattr(net.model, "kept")
