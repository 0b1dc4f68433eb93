"""Training steps for ExecuTorch: compared in its own runtime, told in a contract, refused by region and operator."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_nets
import pytest
import torch
from torch import nn

import altprop
from altprop import ExportError
from altprop.compiler.export import pte_check, pte_file, pte_lower, pte_run
from altprop.compiler.export.retrace import region_of

NEEDED = "ExecuTorch is not installed: pip install 'altprop[executorch]'"


def needs_executorch(test: Any) -> Any:
    """Marks a test that lowers a program: some seconds each."""
    return pytest.mark.full(pytest.mark.skipif(not pte_file.is_installed(), reason=NEEDED)(test))


@dataclasses.dataclass
class PteLoop:
    """A training loop in ExecuTorch, with what the contract says."""

    path: Path

    def __post_init__(self) -> None:
        from altprop.compiler.export.pte_run import PteRunner

        self.contract = json.loads(self.path.with_suffix(".json").read_text("utf-8"))
        self.runner = PteRunner(self.path.read_bytes())
        with np.load(self.path.with_name(self.contract["initial"])) as file:
            self.values = {name: torch.from_numpy(file[name].copy()) for name in file.files}
        self.values |= {
            one["name"]: torch.tensor(one["default"], dtype=getattr(torch, one["dtype"]))
            for one in self.contract["scalars"]
        }

    def step(self, x: torch.Tensor, target: torch.Tensor) -> float:
        given = self.values | {"input": x, "target": target}
        results = self.runner([given[name] for name in self.contract["takes"]])
        made = dict(zip(self.contract["gives"], results, strict=True))
        self.values |= {s["name"]: made[s["next"]] for s in self.contract["states"] if s["next"]}
        return float(made["loss"])

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {state["state_dict"]: self.values[state["name"]] for state in self.contract["states"]}


@needs_executorch
@pytest.mark.parametrize(("name", "rule"), [("mlp", "reclra"), ("convnet", "dfa")])
def test_a_loop_in_executorch_trains_as_the_net_does(name: str, rule: str, tmp_path: Path) -> None:
    net = onnx_nets.compiled(name, rule=rule)
    loop = PteLoop(net.export(tmp_path / "step.pte"))
    for step in range(20):
        x, y = onnx_nets.batch_of(onnx_nets.SHAPES[name], 4, seed=step)
        assert loop.step(x, y) == pytest.approx(float(net.step(x, y)), abs=1e-5, rel=1e-5)
    state = net.state_dict()
    assert set(state) == set(loop.state_dict())
    for key, value in loop.state_dict().items():
        torch.testing.assert_close(value.to(state[key].dtype), state[key], atol=1e-5, rtol=1e-4, msg=key)


@needs_executorch
def test_the_contract_says_what_goes_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = onnx_nets.compiled("mlp", rule="dfa").export(tmp_path / "step.pte", batch=6, initial="")
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert contract["batch"] == 6
    assert contract["inputs"][0]["shape"] == ["batch", 7]
    assert contract["checked"]["batches"] == [6]
    assert contract["operators"]["kernels"]["aten::mm.out"] == 8
    assert 0 < contract["arena"] < 10_000
    assert "0.weight" in contract["takes"]
    assert "0.weight.next" in contract["gives"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["step.json", "step.pte"]
    assert capfd.readouterr() == ("", ""), "the runtime's own lines are held back"


@needs_executorch
def test_a_delegate_runs_what_it_takes(tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="XNNPACK's partitioner needs torchao")
    path = onnx_nets.compiled("mlp", rule="dfa").export(tmp_path / "step.pte", delegate="xnnpack")
    operators = json.loads(path.with_suffix(".json").read_text("utf-8"))["operators"]
    assert operators["XnnpackBackend"]["aten::mul.Tensor"] > 0
    assert operators["XnnpackBackend"]["aten::bmm"] == 8, "its other products want fixed weights"
    assert "aten::mm.out" not in operators["kernels"]


def drawn_step(net: Any, x: torch.Tensor, path: Path) -> None:
    """Two steps of a file are those of the net."""
    loop = PteLoop(net.export(path))
    for seed in range(2):
        y = torch.randint(3, (len(x),), generator=torch.Generator().manual_seed(seed))
        assert loop.step(x, y) == pytest.approx(float(net.step(x, y)), abs=1e-5)
    for key, value in net.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(loop.state_dict()[key].to(value.dtype), value, atol=1e-5, rtol=1e-4, msg=key)


@needs_executorch
def test_convolutions_of_all_kinds_train_as_products(tmp_path: Path) -> None:
    """Groups, strides, dilation, transposed ones, and the gradients of their inputs, which `fa` asks for."""
    layers: list[nn.Module] = [
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Tanh(),
        nn.Conv2d(4, 2, (2, 3), dilation=(2, 1)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2 * 4 * 4, 3),
    ]
    x = torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    model = onnx_nets.seeded(lambda: nn.Sequential(*layers))
    net = altprop.compile(model, "fa", example_inputs=x, optimizer=altprop.optim.SGD(lr=0.1, momentum=0.9))
    drawn_step(net, x, tmp_path / "step.pte")
    kernels = json.loads((tmp_path / "step.json").read_text("utf-8"))["operators"]["kernels"]
    assert not [name for name in kernels if "convolution" in name]


@needs_executorch
def test_a_convolution_in_three_dimensions_trains(tmp_path: Path) -> None:
    model = onnx_nets.seeded(lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 8, 3)))
    x = torch.randn(4, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    net = altprop.compile(model, "dfa", example_inputs=x, optimizer=altprop.optim.SGD(lr=0.1))
    drawn_step(net, x, tmp_path / "step.pte")


@needs_executorch
def test_a_delegate_runs_a_forward_whose_weights_are_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="XNNPACK's partitioner needs torchao")
    path = onnx_nets.compiled("mlp", rule="dfa").export(tmp_path / "forward.pte", what="forward", delegate="xnnpack")
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert contract["states"] == []
    assert "kernels" not in contract["operators"], "XNNPACK runs all of it"


@needs_executorch
def test_the_forward_and_the_updates(tmp_path: Path) -> None:
    net = onnx_nets.compiled("mlp", rule="dfa")
    net.export(tmp_path / "forward.pte", what="forward")
    net.export(tmp_path / "update.pte", what="update")
    names = {one.name for one in tmp_path.glob("*.pte")}
    assert names == {"forward.pte", "update.0.pte", "update.2.pte", "update.4.pte"}


class Solid(nn.Module):
    """A convolution in three dimensions, whose filters see one channel each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 3, groups=2)
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3, 4)))


def refused(model: nn.Module, x: torch.Tensor, path: Path, match: str) -> None:
    net = altprop.compile(model, "dfa", example_inputs=x, optimizer=altprop.optim.SGD(lr=0.1))
    with pytest.raises(ExportError, match=match):
        net.export(path)
    assert not list(path.parent.iterdir())


@needs_executorch
def test_what_has_no_kernel_is_refused_by_region_and_operator(tmp_path: Path) -> None:
    says = r'region "conv": ExecuTorch has no kernel for aten.convolution.default in three dimensions; write'
    refused(Solid(), torch.randn(4, 2, 4, 4, 4), tmp_path / "step.pte", says)


class Scores(nn.Module):
    """Scores of every position, with the classes in front as the loss wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x).tanh()).transpose(1, 2)


def scoring(optimizer: Any) -> Any:
    loss = nn.CrossEntropyLoss()
    return altprop.compile(Scores(), "dfa", loss=loss, example_inputs=torch.randn(2, 3, 4), optimizer=optimizer)


@needs_executorch
def test_results_lie_in_memory_row_by_row(tmp_path: Path) -> None:
    loop = PteLoop(scoring(onnx_nets.SGD).export(tmp_path / "step.pte", target=torch.zeros(2, 3, dtype=torch.int64)))
    given = loop.values | {"x": torch.randn(2, 3, 4), "target": torch.zeros(2, 3, dtype=torch.int64)}
    results = loop.runner([given[name] for name in loop.contract["takes"]])
    assert all(one.is_contiguous() for one in results), "who reads them knows their shape alone"


@needs_executorch
def test_muon_in_float32(tmp_path: Path) -> None:
    path = onnx_nets.compiled("mlp", altprop.optim.Muon(lr=1e-2, precision="float32"), "dfa").export(tmp_path / "s.pte")
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["checked"]["difference"] < 1e-4


@pytest.mark.parametrize(
    "suffix",
    [".onnx", pytest.param(".pte", marks=pytest.mark.skipif(not pte_file.is_installed(), reason=NEEDED))],
)
def test_numbers_of_half_the_precision_are_refused(suffix: str, tmp_path: Path) -> None:
    net = onnx_nets.compiled("mlp", altprop.optim.Muon(lr=1e-2), "dfa")
    with pytest.raises(ExportError, match=r'bfloat16.*or where it is the optimizer that rounds, give it precision="fl'):
        net.export(tmp_path / f"step{suffix}")
    assert not list(tmp_path.iterdir())


@needs_executorch
def test_a_difference_names_the_region_and_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pte_lower.PortableRun.call_function

    def wrong(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        made = right(self, target, args, kwargs)
        return made * 1.1 if target is torch.ops.aten.tanh.default else made

    monkeypatch.setattr(pte_lower.PortableRun, "call_function", wrong)
    net = onnx_nets.compiled("mlp", rule="dfa")
    with pytest.raises(ExportError, match=r'than torch, by (.|\n)*region "0", operator aten.tanh.default. Nothing'):
        net.export(tmp_path / "step.pte")
    assert not list(tmp_path.iterdir())


def test_a_model_in_float64_is_refused_in_front(tmp_path: Path) -> None:
    """Before ExecuTorch is looked for, and before anything is lowered."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    net = altprop.compile(model, "dfa", example_inputs=x, optimizer=altprop.optim.SGD(lr=0.1))
    with pytest.raises(ExportError, match=r'^0.weight is torch.float64, .*model.float\(\), or .* ".pt2" takes it'):
        net.export(tmp_path / "step.pte")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("reason", "says"),
    [("", "ExecuTorch's runtime; write"), ("no memory", r"ExecuTorch's runtime \(no memory\); write")],
)
def test_a_failing_operator_is_named_with_the_reason_if_there_is_one(reason: str, says: str) -> None:
    def runner(values: list[Any]) -> list[Any]:
        raise pte_run.RunError(reason, "aten::mm.out")

    made = pte_lower.LoweredProgram(b"", None, {}, {}, 0, {}, {"aten::mm.out": ['region "0"']})  # type: ignore[arg-type]
    with pytest.raises(
        ExportError, match=f'^region "0": the operator aten::mm.out fails in {says} it in other operators'
    ):
        pte_check._run(runner, made, {})  # type: ignore[arg-type]


class LoweredError(Exception):
    """A program would be lowered now."""


def test_what_is_only_moved_is_not_kept_for_another_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local losses: two convolutions read the same activity, and its nine moved copies would wait for the second."""
    lowered: list[Any] = []

    def keep(program: Any, *others: Any) -> Any:
        lowered.append(program)
        raise LoweredError

    monkeypatch.setattr(pte_file, "_found", lambda package: True)
    monkeypatch.setattr(pte_file, "lower", keep)
    x, y = onnx_nets.batch_of((1, 4, 4), 4)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3)]
    with pytest.raises(LoweredError):
        altprop.compile(nn.Sequential(*layers), "local_loss", example_inputs=(x,)).export(
            tmp_path / "backward.pte", what="backward", target=y
        )
    columns = [node.args[1] for node in lowered[0].graph.graph.nodes if node.target is torch.ops.aten.bmm.default]
    assert len(columns) > 30
    assert [one for one in columns if len(set(map(region_of, one.users))) > 1] == []


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pte_file, "_found", lambda package: package != "executorch")
    with pytest.raises(ExportError, match=r'".pte" needs the package executorch: pip install "altprop\[executorch\]"'):
        onnx_nets.compiled("mlp", rule="dfa").export(tmp_path / "step.pte")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "batch=0: how many samples the file takes is a whole number above 0"),
        ({"batch": True}, "batch=True: how many"),
        ({"delegate": "vulkan"}, "delegate=\"vulkan\": there are '', 'xnnpack'"),
    ],
)
def test_bad_options_are_one_sentence(
    options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pte_file, "_found", lambda package: True)
    with pytest.raises(ExportError, match=says):
        onnx_nets.compiled("mlp", rule="dfa").export(tmp_path / "step.pte", **options)


@needs_executorch
@pytest.mark.parametrize("rule", ["drtp", "reclra", "dkp", "local_loss", "fa"])
@pytest.mark.parametrize("optimizer", [onnx_nets.SGD, altprop.optim.Adam(lr=1e-2)], ids=["sgd", "adam"])
def test_rules_and_optimizers(rule: str, optimizer: Any, tmp_path: Path) -> None:
    path = onnx_nets.compiled("convnet", optimizer, rule).export(tmp_path / "step.pte")
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["checked"]["difference"] < 1e-5


@needs_executorch
def test_random_numbers_are_the_same(tmp_path: Path) -> None:
    x, _ = onnx_nets.batch_of((1, 8, 8), 4)
    model = onnx_nets.seeded(lambda: onnx_nets.convnet(0.3))
    net = altprop.compile(model, "dfa", example_inputs=x, optimizer=onnx_nets.SGD)
    path = net.export(tmp_path / "step.pte")
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["checked"]["difference"] < 1e-5
