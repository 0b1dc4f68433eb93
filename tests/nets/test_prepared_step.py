"""A step that is ready for the next batch: the same bits, and whatever changed between two steps is noticed."""

import copy
from typing import Any

import kept
import pytest
import torch
from torch import nn
from zoo_small import mlp

import altprop
from altprop.runtime import prepared_step

pytestmark = pytest.mark.third


def make(rule: str = "reclra", **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", altprop.optim.SGD(lr=0.05, momentum=0.9))
    model = options.pop("model", mlp(nn.Tanh))
    return kept.compile(model, rule, example_inputs=(torch.randn(4, 7),), optimizer=optimizer, **options)


def batch(index: int = 0, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(size, 7, generator=generator), torch.randint(3, (size,), generator=generator)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at each step that was prepared_step."""
    found: list[int] = []
    run = prepared_step.Ready.run

    def counted(self: prepared_step.Ready, *args: Any) -> torch.Tensor:
        found.append(1)
        return run(self, *args)

    monkeypatch.setattr(prepared_step.Ready, "run", counted)
    return found


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra", "kp", "drtp"])
@pytest.mark.parametrize("optimizer", [altprop.optim.SGD(lr=0.05, momentum=0.9), altprop.optim.AdamW(lr=0.01)])
def test_the_same_bits(rule: str, optimizer: Any, runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = (make(rule, optimizer=copy.deepcopy(optimizer)) for _ in range(2))
    sizes = (4, 4, 6, 4, 3)
    losses = [fast.step(*batch(index, size)) for index, size in enumerate(sizes)]
    assert len(runs) == len(sizes) - 1
    monkeypatch.setattr(prepared_step.Ready, "can_be", staticmethod(lambda *args: False))
    for (index, size), loss in zip(enumerate(sizes), losses, strict=True):
        assert torch.equal(slow.step(*batch(index, size)), loss)
    assert len(runs) == len(sizes) - 1
    for key, value in slow.state_dict().items():
        assert torch.equal(value, fast.state_dict()[key]), key


class Dropping(nn.Module):
    """A linear network with dropout, which evaluation mode leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.out = nn.Linear(7, 50), nn.Dropout(0.9), nn.Linear(50, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.drop(self.first(x)))
        return found


def test_evaluation_mode_is_noticed(runs: list[int]) -> None:
    net = make("dfa", model=Dropping(), optimizer=altprop.optim.SGD(lr=0.0))
    x, y = batch()
    assert len({float(net.step(x, y)) for _ in range(4)}) > 1
    net.model.drop.eval()  # a part alone, behind the net's back
    assert len({float(net.step(x, y)) for _ in range(4)}) == 1
    assert len(runs) == 6


def test_frozen_parameters_are_noticed(runs: list[int]) -> None:
    net = make("dfa")
    x, y = batch()
    net.step(x, y), net.step(x, y)
    first = next(net.model.parameters())
    first.requires_grad_(False)
    before = first.detach().clone()
    net.step(x, y)
    assert torch.equal(first, before)
    first.requires_grad_(True)
    net.step(x, y)
    assert not torch.equal(first, before)
    assert len(runs) == 1


def test_another_dtype_is_noticed() -> None:
    net = make("dfa")
    x, y = batch()
    net.step(x, y), net.step(x, y)
    net.double()
    assert net.step(x.double(), y).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        net.float().step(x, y)
    assert len(net.compilations.variants) == 3


def test_replaced_tensors_are_found(runs: list[int]) -> None:
    net = make("reclra", optimizer=altprop.optim.SGD(lr=0.1))
    x, y = batch()
    net.step(x, y)
    net.load_state_dict({key: torch.zeros_like(value) for key, value in net.state_dict().items()}, assign=True)
    loss = net.step(x, y)
    assert not runs, "others are looked at once"
    assert float(loss) == pytest.approx(float(torch.tensor(3.0).log()))
    net.step(x, y)
    assert runs == [1]
    assert all(p.abs().sum() > 0 for name, p in net.model.named_parameters() if name.endswith("3.bias"))


def test_rates_are_read_at_each_step(runs: list[int]) -> None:
    net = make("dfa", optimizer=altprop.optim.SGD(lr=0.1))
    x, y = batch()
    net.step(x, y)
    assert net.optimizer is not None
    net.optimizer.lr = 0.0
    before = copy.deepcopy(net.state_dict())
    net.step(x, y)
    assert runs == [1]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items() if key != "state.step")


def test_what_is_wrong_with_a_batch_is_said_as_ever(runs: list[int]) -> None:
    net = make("dfa")
    x, y = batch()
    net.step(x, y)
    with pytest.raises(altprop.CompileError, match="holds the class 7"):
        net.step(x, torch.full_like(y, 7))
    assert runs == [1]
    with pytest.raises(ValueError, match="target has a batch of 3, the input one of 4"):
        net.step(x, y[:3])
    with pytest.raises(altprop.CompileError, match="takes a target"):
        net.step(x, None)
    assert runs == [1]
    assert torch.is_grad_enabled()


def test_slices_with_gaps_are_taken(runs: list[int]) -> None:
    fast, slow = make("dfa"), make("dfa")
    x, y = batch()
    fast.step(x, y), slow.step(x, y)
    wide, long = torch.randn(4, 14), torch.randint(3, (8,))
    assert torch.equal(fast.step(wide[:, ::2], long[::2]), slow.step(wide[:, ::2].clone(), long[::2].clone()))
    assert len(runs) == 2


def test_copies_have_steps_of_their_own(runs: list[int]) -> None:
    net = make("dfa")
    x, y = batch()
    net.step(x, y)
    other = copy.deepcopy(net)
    before = copy.deepcopy(net.state_dict())
    other.step(x, y), other.step(x, y)
    assert runs == [1]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
