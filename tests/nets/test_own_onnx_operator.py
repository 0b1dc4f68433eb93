"""An operator that the ONNX exporter does not know, in this one file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kept
import pytest
import torch
from torch import fx, nn

import altprop

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from altprop.compiler.export.emitter import Emitter
from altprop.compiler.export.operators import TRANSLATORS, translates


@torch.library.custom_op("altprop_own::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    """`x^3`."""
    return x * x * x


@cube.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def keep(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def back(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
    (x,) = ctx.saved_tensors
    return 3 * x * x * cotangent


cube.register_autograd(back, setup_context=keep)


class Cube(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cube(x)


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), Cube(), nn.Linear(4, 3))
    optimizer = altprop.optim.SGD(lr=0.1)
    return kept.compile(model, "dfa", example_inputs=(torch.randn(4, 5),), optimizer=optimizer)


@pytest.fixture
def translated() -> Iterator[None]:
    @translates(torch.ops.altprop_own.cube.default)
    def write(e: Emitter, node: fx.Node, x: fx.Node) -> str:
        square: str = e.op("Mul", e.value(x), e.value(x))
        return str(e.op("Mul", square, e.value(x)))

    yield
    del TRANSLATORS[torch.ops.altprop_own.cube.default]


def test_it_is_refused_until_it_is_known(net: altprop.LocalNet, tmp_path: Path) -> None:
    with pytest.raises(altprop.ExportError, match="altprop_own"):
        net.export(tmp_path / "step.onnx")


def test_a_step_with_it_is_checked_by_onnxruntime(net: altprop.LocalNet, translated: None, tmp_path: Path) -> None:
    path = net.export(tmp_path / "step.onnx")  # the export compares each value with torch's
    assert (tmp_path / "step.onnx").stat().st_size > 0
    assert Path(path) == tmp_path / "step.onnx"
