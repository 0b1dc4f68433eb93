"""A step in onnxruntime's CUDA provider is the step in torch, and its states stay on the GPU."""

from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest
import torch
from onnx_nets import SHAPES, assert_close, batch_of, compiled
from torch.utils import _pytree as pytree
from zoo import ZOO
from zoo_cases import Case, single

import altprop
from altprop.runtime.onnx_session import CUDA

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or CUDA not in onnxruntime.get_available_providers(),
    reason="there is no CUDA device here, or this onnxruntime has no CUDA provider",
)
SGD = altprop.optim.SGD(lr=0.02, momentum=0.9, weight_decay=1e-3)
RULES = ("bp", "dfa", "dkp", "drtp", "fa", "kp", "lra_e", "reclra", "sdfa", "usf")


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions of torch in full precision, by the same algorithm every time."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        yield


def on_gpu(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.cuda() if isinstance(x, torch.Tensor) else x, tree)


def losses(net: Any, name: str, count: int = 20) -> list[float]:
    return [float(net.step(*on_gpu(batch_of(SHAPES[name], 4 + step % 3, seed=step)))) for step in range(count)]


def pair(name: str, rule: str = "reclra", optimizer: Any = SGD) -> tuple[Any, Any]:
    eager, session = (compiled(name, optimizer, rule, backend=backend).cuda() for backend in ("eager", "onnxruntime"))
    return eager, session


def providers_of(net: Any) -> set[str]:
    """What runs the steps that a net has made."""
    steps = [kept.variant.executor("step") for kept in net.compilations.variants if kept.mode.device.type == "cuda"]
    return {step.session.engine.get_providers()[0] for step in steps}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_twenty_steps_equal_eager(name: str, rule: str) -> None:
    eager, session = pair(name, rule)
    torch.testing.assert_close(losses(session, name), losses(eager, name), atol=1e-5, rtol=1e-5)
    assert providers_of(session) == {CUDA}
    assert_close(session, eager)


@pytest.mark.parametrize("optimizer", [altprop.optim.Adam(lr=1e-3), altprop.optim.AdamW(lr=1e-3)])
def test_adam_equals_eager(optimizer: Any) -> None:
    eager, session = pair("mlp", optimizer=optimizer)
    torch.testing.assert_close(losses(session, "mlp"), losses(eager, "mlp"), atol=1e-5, rtol=1e-5)
    assert_close(session, eager)


def zoo_net(case: Case, backend: str) -> Any:
    inputs = on_gpu(single(case.inputs(4)))
    given = {"example_kwargs": inputs} if isinstance(inputs, dict) else {"example_inputs": inputs}
    loss = case.loss.float() if isinstance(case.loss, torch.nn.Module) else case.loss
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    return altprop.compile(
        case.model().float().cuda(), "reclra", loss=loss, optimizer=optimizer, backend=backend, **given
    )


@pytest.mark.parametrize("name", ["conv_variety", "sequence_linear", "attention", "tied_embedding", "dict_output"])
def test_other_models_equal_eager(name: str) -> None:
    case = ZOO[name]
    nets = [zoo_net(case, backend) for backend in ("eager", "onnxruntime")]
    inputs, target = on_gpu(single(case.inputs(4))), on_gpu(single(case.target(4)))
    for _ in range(20):
        found = [float(net.step(inputs, target)) for net in nets]
        assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert_close(*nets)


def test_states_stay_on_the_gpu() -> None:
    eager, session = pair("mlp")
    for net in (eager, session):
        losses(net, "mlp", 3)
    assert {one.device.type for one in (*session.parameters(), *session.state.buffers()) if one.dim()} == {"cuda"}
    torch.testing.assert_close(session.model[0].weight, eager.model[0].weight, atol=1e-6, rtol=1e-6)


def test_a_net_goes_to_the_cpu_and_back() -> None:
    eager, session = pair("mlp")
    for net in (eager, session):
        losses(net, "mlp", 3)
        net.cpu()
        net.step(*batch_of(SHAPES["mlp"], 4, seed=9))
        net.cuda()
        losses(net, "mlp", 3)
    assert_close(session, eager)
