"""`backend="onnxruntime"`: steps run in a session, and the net stays what it is."""

import copy
import pickle
from typing import Any

import pytest
import torch
from choose import one_each
from onnx_nets import SGD, assert_close, batch_of, compiled, mlp, steps, zoo_net
from torch import nn
from zoo import ZOO
from zoo_cases import single

import altprop
from altprop.ir.errors import CompileError, ExportError

pytestmark = pytest.mark.third


@pytest.mark.parametrize(("rule", "name"), one_each(["reclra", "dfa", "fa", "bp"], ["mlp", "convnet"]))
def test_twenty_steps_equal_eager(name: str, rule: str) -> None:
    # With a batch norm over four samples and a higher rate, differences of rounding would grow by themselves.
    optimizer = altprop.optim.SGD(lr=0.02, momentum=0.9, weight_decay=1e-3)
    eager, session = compiled(name, optimizer, rule), compiled(name, optimizer, rule, backend="onnxruntime")
    torch.testing.assert_close(steps(session, name, 20), steps(eager, name, 20), atol=1e-5, rtol=1e-5)
    assert_close(session, eager)


@pytest.mark.parametrize(
    "name", ["conv_variety", "sequence_linear", "attention", "tied_embedding", "gru", "dict_output"]
)
def test_other_models_equal_eager(name: str) -> None:
    case = ZOO[name]
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    nets = [zoo_net(case, "reclra", optimizer, backend=backend) for backend in ("eager", "onnxruntime")]
    inputs, target = single(case.inputs(4)), single(case.target(4))
    for _ in range(20):
        losses = [float(net.step(inputs, target)) for net in nets]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert_close(*nets)


@pytest.mark.parametrize(
    "optimizer", [altprop.optim.Adam(lr=1e-3), altprop.optim.AdamW(lr=1e-3)], ids=["adam", "adamw"]
)
def test_adam_equals_eager(optimizer: Any) -> None:
    eager, session = compiled("mlp", optimizer), compiled("mlp", optimizer, backend="onnxruntime")
    torch.testing.assert_close(steps(session, "mlp", 20), steps(eager, "mlp", 20), atol=1e-5, rtol=1e-5)
    assert_close(session, eager)


def test_states_come_home_when_they_are_looked_at() -> None:
    net, eager = compiled("mlp", backend="onnxruntime"), compiled("mlp")
    before = net.model[0].weight.detach().clone()
    for count in (1, 2):
        steps(net, "mlp", count)
        steps(eager, "mlp", count)
        torch.testing.assert_close(net.model[0].weight, eager.model[0].weight, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(net.feedback["4->0"], eager.feedback["4->0"], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            net.state["momentum:0.weight"], eager.state["momentum:0.weight"], atol=1e-6, rtol=1e-6
        )
    assert not torch.equal(net.model[0].weight, before)


def test_what_is_changed_between_steps_counts() -> None:
    net, eager = (
        compiled("mlp", altprop.optim.SGD(lr=0.1, momentum=0.9), backend=backend)
        for backend in ("onnxruntime", "eager")
    )
    for one in (net, eager):
        steps(one, "mlp", 1)
        with torch.no_grad():
            one.model[0].weight.mul_(0.5)
            one.model[2].weight = nn.Parameter(one.model[2].weight * 2)
        one.optimizer.lr = 0.02
        steps(one, "mlp", 2, first=1)
    assert_close(net, eager)


def test_other_calls_run_in_torch_on_the_present_weights() -> None:
    net, eager = compiled("mlp", backend="onnxruntime"), compiled("mlp")
    x, y = batch_of((7,), 5)
    for one in (net, eager):
        steps(one, "mlp", 3)
    torch.testing.assert_close(net(x), eager(x), atol=1e-5, rtol=1e-5)
    assert float(net.backward(x, y)) == pytest.approx(float(eager.backward(x, y)), abs=1e-5)
    torch.testing.assert_close(net.model[0].weight.grad, eager.model[0].weight.grad, atol=1e-5, rtol=1e-5)


def test_copies_and_checkpoints_go_on() -> None:
    net = compiled("mlp", backend="onnxruntime")
    steps(net, "mlp", 3)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), compiled("mlp", backend="onnxruntime")]
    copies[2].load_state_dict(net.state_dict())
    expected = steps(net, "mlp", 3, first=3)
    for other in copies:
        assert steps(other, "mlp", 3, first=3) == expected


def test_memory_in_another_order() -> None:
    """A filter whose channels lie last in memory has a buffer of its own."""
    nets = [compiled("convnet"), compiled("convnet", backend="onnxruntime")]
    model = nets[1].model.to(memory_format=torch.channels_last)
    assert model is nets[1].model
    for net in nets:
        steps(net, "convnet", 3)
    assert_close(*nets)


class Packed(nn.Module):
    """Two layers whose weights lie in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.packed = torch.randn(98, generator=torch.Generator().manual_seed(0)) / 3
        self.a.weight.data, self.b.weight.data = self.packed[:49].view(7, 7), self.packed[49:].view(7, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def test_a_parameter_in_a_variable_and_memory_that_is_shared() -> None:
    nets = []
    for backend in ("eager", "onnxruntime"):
        torch.manual_seed(0)
        example = (torch.zeros(4, 7),)
        nets.append(altprop.compile(Packed(), "dfa", example_inputs=example, optimizer=SGD, backend=backend))
    kept = [(net.model.a.weight, net.model.c.weight) for net in nets]
    for count in (1, 2):
        for net in nets:
            steps(net, "mlp", count)
            assert torch.equal(net.model.packed[:49].view(7, 7), net.model.a.weight)
        for one, other in zip(*kept, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_two_nets_step_one_model_in_turns() -> None:
    made = []
    for backend in ("eager", "onnxruntime"):
        first = compiled("mlp", backend=backend)
        second = altprop.compile(
            first.model, "fa", example_inputs=batch_of((7,), 4)[:1], optimizer=SGD, backend=backend
        )
        made.append([steps(net, "mlp", 1, first=turn) for turn, net in enumerate([first, second] * 5)])
    torch.testing.assert_close(*map(torch.tensor, made), atol=1e-5, rtol=1e-5)


def test_a_rule_that_draws_noise_trains() -> None:
    net = compiled("mlp", altprop.optim.SGD(lr=0.02), "dtp", backend="onnxruntime")
    before = net.model[0].weight.detach().clone()
    assert all(loss == loss for loss in steps(net, "mlp", 3))
    assert not torch.equal(net.model[0].weight, before)


def test_refusals() -> None:
    with pytest.raises(CompileError, match=r"net.step needs an optimizer inside the program"):
        steps(compiled("mlp", None, backend="onnxruntime"), "mlp", 1)
    net = altprop.compile(mlp().bfloat16(), optimizer=SGD, backend="onnxruntime")
    with pytest.raises(ExportError, match=r"torch.bfloat16: files are made in float32"):
        net.step(torch.randn(4, 7).bfloat16(), torch.zeros(4, dtype=torch.int64))
