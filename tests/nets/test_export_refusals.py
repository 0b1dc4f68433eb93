"""Steps as files: that no wrong file is kept."""

import json
from pathlib import Path
from typing import Any

import kept
import numpy as np
import onnx
import pytest
import torch
from onnx_nets import SGD, compiled, mlp, seeded
from torch import nn

import altprop
from altprop.compiler.export import onnx_file, reference
from altprop.compiler.export.decompose import OWN
from altprop.compiler.export.operators import TRANSLATORS
from altprop.ir.errors import CompileError, ExportError

pytestmark = pytest.mark.third

aten = torch.ops.aten


def test_a_wrong_operator_stops_the_export_and_names_its_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TRANSLATORS, aten.tanh.default, lambda e, node, x: e.op("Sigmoid", e.value(x)))
    with pytest.raises(ExportError, match=r'the first to differ is region "0", operator aten.tanh.default'):
        compiled("mlp").export(tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("apart", [False, True])
def test_a_wrong_forward_names_its_operator_wherever_its_weights_are(
    apart: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TRANSLATORS, aten.tanh.default, lambda e, node, x: e.op("Sigmoid", e.value(x)))
    with pytest.raises(ExportError, match=r"operator aten\.tanh\.default"):
        compiled("mlp").export(tmp_path / "forward.onnx", what="forward", external_data=apart)
    assert not list(tmp_path.iterdir())


def test_weights_over_the_limit_of_a_message_go_beside_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The limit is 2 GB; the weights here have under a hundred numbers, and begin at pages of the file."""
    monkeypatch.setattr(onnx_file, "MESSAGE_LIMIT", 64)
    net = compiled("mlp")
    path = net.export(tmp_path / "forward.onnx", what="forward")
    data = path.with_name("forward.onnx.data").read_bytes()
    model = onnx.load_model(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.external_data}
    assert set(tensors) == set(dict(net.model.named_parameters()))
    for name, tensor in tensors.items():
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert not tensor.raw_data
        assert int(place["offset"]) % 4096 == 0
        stored = np.frombuffer(data, np.float32, int(place["length"]) // 4, int(place["offset"]))
        np.testing.assert_array_equal(stored, net.model.get_parameter(name).detach().numpy().ravel())


@pytest.mark.parametrize(
    ("expected", "actual", "gap"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0, np.inf], [1.0, np.inf], 0.0),
        ([1.0, np.inf], [1.0, 2.0], np.inf),
        ([1.0, 4.0], [1.5, 4.0], 0.125),  # relative to the largest
        ([0.5, 0.0, 0.0], [0.5, 0.0, 0.25], 0.25),
        ([0.0, 0.0, 8.0], [0.0, 1.0, 8.0], 0.125),
        ([], [], 0.0),
    ],
)
def test_differences_are_found_block_by_block(
    expected: list[float], actual: list[float], gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "BLOCK", 2)
    assert reference.difference(torch.tensor(expected), np.array(actual, np.float32)) == gap


def test_a_wrong_decomposition_stops_the_export_and_names_its_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = OWN[aten.convolution_backward.default]

    def wrong(*args: Any) -> Any:
        made = right(*args)
        return (made[0], made[1] * 1.01, made[2])

    monkeypatch.setitem(OWN, aten.convolution_backward.default, wrong)
    with pytest.raises(ExportError, match=r'"state.momentum:0.weight.next".*the first to differ is region "0"'):
        compiled("convnet").export(tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


class Gamma(nn.Module):
    """A layer with an operator that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.lgamma(self.first(x)))


def test_an_operator_that_onnx_lacks_is_refused_with_its_region(tmp_path: Path) -> None:
    net = kept.compile(seeded(Gamma), "dfa", example_inputs=(torch.randn(3, 4),), optimizer=SGD)
    with pytest.raises(ExportError, match=r'region "first": the operator aten.lgamma.default has no form in ONNX'):
        net.export(tmp_path / "step.onnx")


def test_refusals(tmp_path: Path) -> None:
    net = compiled("mlp", None)
    with pytest.raises(ExportError, match=r'what="step" needs an optimizer inside the program.*what="backward"'):
        net.export(tmp_path / "step.onnx")
    with pytest.raises(ExportError, match=r'what="all": there are step, backward, forward, update'):
        net.export(tmp_path / "step.onnx", what="all")
    with pytest.raises(ExportError, match=r'initial=".csv": there are .npz, .safetensors'):
        net.export(tmp_path / "backward.onnx", what="backward", initial=".csv")
    with pytest.raises(ExportError, match=r'".pt2" holds "step" or "backward"'):
        net.export(tmp_path / "forward.pt2", what="forward")
    with pytest.raises(ExportError, match=r"net.svg: what fit .onnx, .pte and .pt2 alone"):
        net.export(tmp_path / "net.svg", what="step")
    with pytest.raises(CompileError, match="nothing is compiled yet"):
        altprop.compile(mlp()).export(tmp_path / "step.onnx")


def test_a_model_in_half_precision_is_refused(tmp_path: Path) -> None:
    net = kept.compile(mlp().bfloat16(), example_inputs=(torch.randn(2, 7).bfloat16(),), optimizer=SGD)
    with pytest.raises(ExportError, match=r"0.weight is torch.bfloat16: files are made in float32"):
        net.export(tmp_path / "step.onnx")


def test_a_loss_whose_target_is_unknown_asks_for_one(tmp_path: Path) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean()

    net = kept.compile(mlp(), example_inputs=(torch.randn(2, 7),), loss=loss, optimizer=SGD)
    with pytest.raises(ExportError, match=r"the loss loss does not say what its target looks like: .*target="):
        net.export(tmp_path / "step.onnx")
    path = net.export(tmp_path / "step.onnx", target=torch.randn(2, 3))
    assert path.exists()


def test_a_parameter_named_like_an_input_is_told_apart(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.randn(7, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.x

    net = kept.compile(Named(), example_inputs=(torch.randn(2, 7),), optimizer=SGD)
    contract = json.loads(net.export(tmp_path / "s.onnx").with_suffix(".json").read_text("utf-8"))
    assert [head["name"] for head in contract["inputs"]] == ["input.x", "target"]
    assert "x" in {state["name"] for state in contract["states"]}
