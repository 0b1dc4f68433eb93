"""Steps as files: what is in them, and that plain onnxruntime trains with them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import kept
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from choose import rules_of_ours
from onnx_nets import ADAMW, SGD, SHAPES, batch_of, compiled, convnet, seeded
from onnx_tidy import assert_tidy
from safetensors.torch import load_file
from torch import nn

import altprop
from altprop.compiler.export import contract

pytestmark = pytest.mark.third


class Loop:
    """A training loop that knows the file and its contract alone."""

    def __init__(self, path: Path) -> None:
        self.contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        with np.load(path.parent / self.contract["initial"]) as stored:
            self.state = {state["name"]: stored[state["name"]] for state in self.contract["states"]}
        self.scalars = {s["name"]: np.array(s["default"], s["dtype"]) for s in self.contract["scalars"]}

    def step(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        given = {"input": x.numpy(), "target": y.numpy(), **self.state, **self.scalars}
        made = dict(zip(names, self.session.run(names, given), strict=True))
        for state in self.contract["states"]:
            if state["next"]:
                self.state[state["name"]] = made[state["next"]]
        return made

    def state_dict(self) -> dict[str, torch.Tensor]:
        names = {state["name"]: state["state_dict"] for state in self.contract["states"]}
        return {key: torch.from_numpy(np.array(self.state[name])) for name, key in names.items()}


@cache
def exported(name: str, optimizer: str, rule: str, folder: Path) -> tuple[Any, Path]:
    net = compiled(name, {"sgd": SGD, "adamw": ADAMW}[optimizer], rule)
    return net, net.export(folder / f"{name}-{optimizer}-{rule}.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


# A bias before a batch norm has no gradient but rounding, which Adam turns into steps: no Adam for the convnet.
@pytest.mark.parametrize("rule", ["reclra", "fa"])
@pytest.mark.parametrize(("name", "optimizer"), [("mlp", "sgd"), ("mlp", "adamw"), ("convnet", "sgd")])
def test_a_loop_in_onnxruntime_trains_as_the_net_does(name: str, optimizer: str, rule: str, folder: Path) -> None:
    net, path = exported(name, optimizer, rule, folder)
    loop = Loop(path)
    for step in range(20):
        x, y = batch_of(SHAPES[name], 4 + step % 3, seed=step)
        expected = net.step(x, y)
        assert loop.step(x, y)["loss"] == pytest.approx(float(expected), abs=1e-5)
    state = net.state_dict()
    assert set(state) == set(loop.state_dict())
    for key, value in loop.state_dict().items():
        torch.testing.assert_close(value.to(state[key].dtype), state[key], atol=1e-5, rtol=1e-4, msg=key)


# A net whose rules take turns has no single program; test_schedule_rules sees it refused.
ONE_PROGRAM = [name for name in rules_of_ours() if (rule := altprop.rules.get(name)).wiring.alternate(rule) is None]


# By the operator that ONNX does not have: one that solves equations, and a sort that keeps the order of what is equal.
WITHOUT_A_FORM = {"ls": "solve", "mac": "solve", "ga": "sort.stable"}


@pytest.mark.parametrize("rule", sorted(set(ONE_PROGRAM) - set(WITHOUT_A_FORM) - {"reclra", "fa", "bp", "dfa"}))
def test_every_rule_exports(rule: str, tmp_path: Path) -> None:
    path = compiled("mlp", rule=rule).export(tmp_path / "step.onnx")
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert contract["checked"]["difference"] < 1e-5
    assert [head["name"] for head in contract["inputs"]] == ["input", "target"], "noise is drawn inside"


@pytest.mark.parametrize(("rule", "operator"), WITHOUT_A_FORM.items())
def test_what_onnx_has_no_form_for_is_refused_by_name(rule: str, operator: str, tmp_path: Path) -> None:
    with pytest.raises(altprop.ExportError, match=operator):
        compiled("mlp", rule=rule).export(tmp_path / "step.onnx")


@pytest.mark.parametrize("kind", ["sparse", "binary", "unified"])
def test_compact_feedback_exports(kind: str, tmp_path: Path) -> None:
    path = compiled("mlp", rule=f"dfa(kind='{kind}')").export(tmp_path / "step.onnx")
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["checked"]["difference"] < 1e-5


def test_what_a_loop_trained_goes_on_in_torch(folder: Path) -> None:
    _, path = exported("mlp", "adamw", "reclra", folder)
    loop = Loop(path)
    x, y = batch_of((7,), 6, seed=3)
    for _ in range(3):
        loop.step(x, y)
    other = compiled("mlp", ADAMW)
    other.load_state_dict(loop.state_dict())
    assert loop.step(x, y)["loss"] == pytest.approx(float(other.step(x, y)), abs=1e-6)


def test_the_contract(folder: Path) -> None:
    net, path = exported("convnet", "sgd", "reclra", folder)
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert contract["format"] == "altprop step"
    assert contract["version"] == 1
    assert contract["rule"] == "*: reclra"
    assert contract["batch"] == "dynamic"
    assert contract["inputs"] == [
        {"name": "input", "part": "input", "dtype": "float32", "shape": ["batch", 1, 8, 8]},
        {"name": "target", "part": "target", "dtype": "int64", "shape": ["batch"]},
    ]
    states = {state["name"]: state for state in contract["states"]}
    parts = {name: state["part"] for name, state in states.items()}
    assert set(net.model.state_dict()) == {name for name, part in parts.items() if part in ("parameter", "buffer")}
    assert parts["feedback.6->0"] == "feedback"
    assert parts["state.momentum:0.weight"] == "optimizer"
    assert states["1.running_mean"]["next"] == "1.running_mean.next"
    assert {state["state_dict"] for state in states.values()} == set(net.state_dict())
    assert [scalar["name"] for scalar in contract["scalars"]] == ["lr", "feedback_lr"]
    assert contract["scalars"][1]["meaning"].endswith("takes lr here too, so change both")
    assert {output["name"] for output in contract["outputs"]} == {"prediction", "loss"}
    assert contract["checked"]["batches"] == [3, 5]
    assert contract["checked"]["difference"] < 1e-5


class Remembering(nn.Module):
    """Two layers; the mean of what the first gives is kept between steps, and not in `state_dict`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(7, 4), nn.Linear(4, 3)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.inner(input))
        self.mean.mul_(0.5).add_(hidden.mean(0).detach())
        scores: torch.Tensor = self.outer(hidden + self.mean)
        return scores


def test_a_buffer_that_torch_does_not_keep_has_no_key(tmp_path: Path) -> None:
    x, y = batch_of((7,), 6)
    net = kept.compile(seeded(Remembering), "dfa", example_inputs=(x,), optimizer=SGD)
    loop = Loop(net.export(tmp_path / "step.onnx"))
    for _ in range(2):
        assert loop.step(x, y)["loss"] == pytest.approx(float(net.step(x, y)), abs=1e-6)
    keys = {state["name"]: state["state_dict"] for state in loop.contract["states"]}
    assert keys.pop("mean") is None
    net.load_state_dict({key: torch.from_numpy(np.array(loop.state[name])) for name, key in keys.items()})
    np.testing.assert_allclose(loop.state["mean"], net.model.mean.numpy(), atol=1e-6)


def test_the_file(folder: Path) -> None:
    _, path = exported("convnet", "sgd", "reclra", folder)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 20
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts["altprop.plan"].startswith("plan 1") or "6 -> 0" in texts["altprop.plan"]
    assert json.loads(texts["altprop.contract"])["format"] == "altprop step"
    heads = {head.name: head for head in model.graph.input}
    assert heads["input"].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not [i.name for i in model.graph.initializer if not i.name.startswith("constant/")]


def test_names_say_where_an_operator_belongs_and_what_a_tensor_is(folder: Path) -> None:
    _, path = exported("mlp", "sgd", "reclra", folder)
    nodes = {node.name: node for node in onnx.load(path).graph.node}
    assert list(nodes["0/forward/Tanh"].output) == ["0/activity"]
    assert {"0/error", "2/error"} <= {name for node in nodes.values() for name in node.output}
    assert any(name.startswith("2/update/Gemm") for name in nodes)
    assert any(name.startswith("loss/LogSoftmax") for name in nodes)
    assert any(name.startswith("optimizer of 0.weight/") for name in nodes)
    said = {entry.key: entry.value for entry in nodes["0/forward/Tanh"].metadata_props}
    operator = "aten.tanh.default"
    assert said == {"altprop.region": "0", "altprop.part": "forward", "altprop.operator": operator}


def test_operators_stand_once_and_say_where_they_belong(folder: Path) -> None:
    _, path = exported("mlp", "adamw", "reclra", folder)
    assert_tidy(path)
    assert [node.input[0] for node in onnx.load(path).graph.node if node.op_type == "Cast"].count("lr") == 1


def test_fixed_feedback_has_no_new_value(tmp_path: Path) -> None:
    path = compiled("mlp", rule="dfa").export(tmp_path / "step.onnx")
    states = json.loads(path.with_suffix(".json").read_text("utf-8"))["states"]
    assert {state["next"] for state in states if state["part"] == "feedback"} == {None}


def test_the_sizes_of_errors_are_results_if_asked_for(tmp_path: Path) -> None:
    net = compiled("mlp")
    loop = Loop(net.export(tmp_path / "step.onnx", errors=True))
    made = loop.step(*batch_of((7,), 6))
    sizes = {name: float(value) for name, value in made.items() if name.startswith("error.")}
    assert set(sizes) == {"error.0", "error.2", "error.4"}
    x, y = batch_of((7,), 6)
    scores = net.model(x).detach().requires_grad_()
    nn.functional.cross_entropy(scores, y, reduction="sum").backward()
    assert sizes["error.4"] == pytest.approx(float(scores.grad.square().mean().sqrt()), rel=1e-5)


def test_the_updates_alone(tmp_path: Path) -> None:
    net = compiled("convnet", None)
    path = net.export(tmp_path / "backward.onnx", what="backward")
    loop = Loop(path)
    x, y = batch_of((1, 8, 8), 5, seed=4)
    made = loop.step(x, y)
    net.backward(x, y)
    for name, parameter in net.model.named_parameters():
        torch.testing.assert_close(torch.from_numpy(made[f"{name}.grad"]), parameter.grad, atol=1e-6, rtol=1e-5)
    for name, feedback in net.feedback.items():
        torch.testing.assert_close(torch.from_numpy(made[f"feedback.{name}.grad"]), feedback.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_the_forward_alone(apart: bool, tmp_path: Path) -> None:
    net = compiled("convnet")
    net.step(*batch_of((1, 8, 8), 6))
    modes = [module.training for module in net.model.modules()]
    path = net.export(tmp_path / "forward.onnx", what="forward", external_data=apart)
    assert [module.training for module in net.model.modules()] == modes
    assert (tmp_path / "forward.onnx.data").exists() == apart
    assert json.loads((tmp_path / "forward.json").read_text("utf-8"))["states"] == [], "weights are in the file"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x, _ = batch_of((1, 8, 8), 9, seed=5)
    (made,) = session.run(None, {"input": x.numpy()})
    net.model.eval()
    np.testing.assert_allclose(made, net.model(x).detach().numpy(), atol=1e-6)


def test_the_update_of_each_region(tmp_path: Path) -> None:
    compiled("mlp").export(tmp_path / "update.onnx", what="update")
    files = sorted(path.name for path in tmp_path.glob("*.onnx"))
    for name in files:
        assert_tidy(tmp_path / name)
    assert files == ["update.0.onnx", "update.2.onnx", "update.4.onnx"]
    contract = json.loads((tmp_path / "update.0.json").read_text("utf-8"))
    assert {"0.weight.grad", "0.bias.grad"} <= {output["name"] for output in contract["outputs"]}


def test_dropout_repeats_with_the_seed_and_changes_with_the_step(tmp_path: Path) -> None:
    x, y = batch_of((1, 8, 8), 6)
    model = seeded(lambda: convnet(0.5))
    net = kept.compile(model, "dfa", example_inputs=(x,), optimizer=altprop.optim.SGD(lr=0.0))
    loop = Loop(net.export(tmp_path / "step.onnx"))
    first = loop.step(x, y)["prediction"]
    second = loop.step(x, y)["prediction"]
    assert not np.allclose(first, second)
    loop.state["state.step"] = np.array(0)
    np.testing.assert_array_equal(loop.step(x, y)["prediction"], first)
    loop.state["state.step"], loop.scalars["seed"] = np.array(0), np.array(1)
    assert not np.allclose(loop.step(x, y)["prediction"], first)


def test_safetensors(tmp_path: Path) -> None:
    net = compiled("mlp")
    net.export(tmp_path / "step.onnx", initial=".safetensors")
    stored = load_file(tmp_path / "step.safetensors")
    assert torch.equal(stored["0.weight"], net.model[0].weight)


def test_a_program_of_torch(tmp_path: Path) -> None:
    net = compiled("mlp")
    path = net.export(tmp_path / "step.pt2")
    contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
    x, y = batch_of((7,), 6)
    with np.load(tmp_path / contract["initial"]) as stored:
        values = {state["name"]: torch.from_numpy(stored[state["name"]]) for state in contract["states"]}
    values |= {s["name"]: torch.tensor(s["default"]) for s in contract["scalars"]}
    made = torch.export.load(path).module()(dict(sorted({**values, "input": x, "target": y}.items())))
    assert float(made["loss"]) == pytest.approx(float(net.step(x, y)), abs=1e-6)
    torch.testing.assert_close(made["0.weight.next"], net.model[0].weight.detach(), atol=1e-6, rtol=1e-6)


def test_a_checkout_that_is_not_installed_writes_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise contract.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(contract.importlib.metadata, "version", missing)
    assert contract._own_version() == "not installed"
