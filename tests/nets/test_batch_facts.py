"""Python that reads the size of a batch: its answer holds for some batches alone, and others are compiled anew."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.rules.dfa import DirectFeedbackAlignment


def net(loss: Any = "mse", model: nn.Module | None = None, rule: Any = "bp", **options: Any) -> Any:
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    options = {"optimizer": altprop.optim.SGD(lr=0.1), **options}
    return altprop.compile(model.double(), rule, loss=loss, example_inputs=(batch(4),), **options)


def batch(size: int) -> torch.Tensor:
    return torch.randn(size, 4, dtype=torch.double, generator=torch.Generator().manual_seed(size))


def by_length(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (y - 0.5).square().sum() / len(y)


def by_number(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (y - 0.5).square().sum() / int(y.shape[0])


def by_choice(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (y - 0.5).square().sum() * (3.0 if y.shape[0] < 6 else 1.0)


def by_rows(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.stack([row.square().sum() for row in y]).sum()


def by_sizes(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (y - 0.5).square().sum() / y.shape[0]


LOSSES: list[Callable[..., torch.Tensor]] = [by_length, by_number, by_choice, by_rows, by_sizes]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_reads_the_size_of_the_batch(loss: Callable[..., torch.Tensor]) -> None:
    made, target = net(loss), torch.zeros(1)
    for size in (4, 8, 5):
        x = batch(size)
        expected = loss(made.model(x), target)
        torch.testing.assert_close(made.step(x, torch.zeros(size, 3).double()), expected.detach())


class Choosing(nn.Module):
    """Another layer for small batches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        h = torch.tanh(h) if x.shape[0] < 6 else torch.relu(h)
        out: torch.Tensor = self.last(h)
        return out


def test_a_forward_that_chooses_by_the_size_of_the_batch() -> None:
    made = net(model=Choosing())
    for size in (4, 8, 5):
        torch.testing.assert_close(made(batch(size)), made.model(batch(size)))


def test_a_captured_model_that_chooses_is_captured_anew_for_other_batches() -> None:
    captured = altprop.capture(Choosing().double(), batch(4))
    assert "of which" in str(captured)
    made = altprop.compile(captured, "bp")
    torch.testing.assert_close(made(batch(8)), captured.model(batch(8)))


@pytest.mark.parametrize(("rule", "loss"), [("bp", by_length), ("by_number", "mse")])
def test_a_loss_or_rule_is_not_answered_by_the_example_of_a_capture(rule: str, loss: Any) -> None:
    """The first batch is of another size than the captured one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    rules = {"bp": "bp", "by_number": ByNumber()}
    target, found = torch.zeros(8, 3).double(), []
    for given in (altprop.capture(model, batch(4)), model):
        options = {} if given is not model else {"example_inputs": (batch(8),)}
        net = altprop.compile(given, rules[rule], loss=loss, **options)
        model.zero_grad()
        value = net.backward(batch(8), target)
        found.append([value.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(*found)


def test_what_choices_hold_for_is_compiled_once() -> None:
    made, known = net(by_choice), []
    for size in (4, 8, 5, 9, 3):
        made.step(batch(size), torch.zeros(size, 3).double())
        known.append(len(made.compilations.variants))
    first = known[0]
    assert known == [first, *[first + 1] * 4]


def test_a_measurement_asks_before_the_first_step() -> None:
    made = net(by_choice)
    made.measure(batch(4), torch.zeros(4, 3).double())
    x = batch(8)
    expected = by_choice(made.model(x), x)
    torch.testing.assert_close(made.step(x, torch.zeros(8, 3).double()), expected.detach())


def test_the_usual_losses_ask_for_nothing(subtests: pytest.Subtests) -> None:
    for loss in ("mse", by_sizes):
        made, known = net(loss), set()
        for size in (4, 8, 5):
            made.step(batch(size), torch.zeros(size, 3).double())
            known.add(len(made.compilations.variants))
        with subtests.test(loss=str(loss)):
            assert len(known) == 1


class ByNumber(DirectFeedbackAlignment):
    """DFA, by one over the number of samples."""

    def error(self, local: Any, d: Any) -> Any:
        return local.phi_vjp(d) / len(d)


def test_a_rule_that_reads_the_size_of_the_batch() -> None:
    x = batch(8)
    made = net(rule=ByNumber())  # on four
    expected = net(rule="dfa")
    for one in (made, expected):
        one.backward(x, torch.zeros(8, 3).double())
    one, other = (some.model.get_parameter("0.weight").grad for some in (made, expected))
    torch.testing.assert_close(one, other / 8)


def test_files_and_schedules_refuse_what_holds_for_some_batches(tmp_path: Path) -> None:
    made, target = net(by_choice), torch.zeros(4, 3).double()
    by_rule, by_forward = net(rule=ByNumber()), net(model=Choosing())
    for refused, do in (
        (altprop.ExportError, lambda: made.export(tmp_path / "step.onnx", target=target)),
        (altprop.ExportError, lambda: by_rule.export(tmp_path / "update.onnx", what="update")),
        (altprop.ExportError, lambda: by_forward.export(tmp_path / "forward.onnx", what="forward")),
        (altprop.ScheduleError, lambda: made.schedule(2, target=target)),
        (altprop.ScheduleError, lambda: by_rule.schedule(2)),
    ):
        with pytest.raises(refused, match="asks for the size of the batch as a number"):
            do()


def test_what_one_model_asked_means_nothing_to_another() -> None:
    """A program is made at the first step, maybe after another model was compiled for a batch of that size."""
    made = net("mse")
    net(by_number).step(batch(4), torch.zeros(4, 3).double())
    x, before = batch(8), copy.deepcopy(made.model)
    loss = made.step(x, torch.zeros(8, 3).double())
    torch.testing.assert_close(loss, before(x).square().mean().detach())
    assert not made.compilations.present().compiled.facts


def test_one_sample_is_refused_where_the_size_is_asked_for() -> None:
    made = net(by_number)
    made.step(batch(4), torch.zeros(4, 3).double())
    with pytest.raises(altprop.CompileError, match=r"one sample runs what was made .* as a number"):
        made.step(batch(1), torch.zeros(1, 3).double())
