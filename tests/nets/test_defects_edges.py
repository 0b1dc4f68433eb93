"""Edges that send people away: several inputs, prints that say too much."""

import pytest
import torch
from torch import nn

import altprop
from altprop.ir.errors import CompileError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.out((self.a(a) + b).relu())


A, B, Y = torch.randn(4, 4), torch.randn(4, 8), torch.tensor([0, 1, 0, 1])


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    return altprop.compile(Two(), "dfa", example_inputs=(A, B), optimizer=altprop.optim.SGD(lr=0.0))


def test_defect_32_several_inputs_are_a_tuple_or_a_list(net: altprop.LocalNet) -> None:
    assert net.backward([A, B], Y) == net.backward((A, B), Y) == net.step([A, B], Y)
    for call in (net.backward, net.step):
        with pytest.raises(CompileError, match=r"several inputs are given as one tuple, net.step\(\(a, b\), target\)"):
            call(A, B, Y)


def test_defect_36_the_history_prints_as_a_table(net: altprop.LocalNet) -> None:
    lines = repr(net.history).splitlines()
    assert lines[0].split() == ["pass", "what", "it", "did", "seconds"]
    assert [line.split()[0] for line in lines[1 : len(net.history) + 1]] == list(net.history)
    assert "2 regions" in str(net.history)
    assert str(net.history["cut_regions"])


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return h * 0.5 if h.mean() > 1 else h


def test_defect_31_a_refused_capture_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CompileError, match=r"use torch\.where"):
        altprop.compile(Chooses(), example_inputs=(A,))
    assert capfd.readouterr() == ("", "")
