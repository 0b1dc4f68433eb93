"""Which of onnxruntime's providers runs a net's steps, and what is said where there is none. No GPU is needed here."""

from typing import Any

import onnxruntime
import pytest
import torch
from onnx_nets import batch_of, compiled, steps
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from altprop.compiler.export.subject import on_cpu
from altprop.ir.errors import CompileError
from altprop.ir.program import Program, Slot
from altprop.runtime import onnx_session
from altprop.runtime.backends import onnxruntime as onnxruntime_backend

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_the_provider_follows_the_net() -> None:
    assert onnx_session.providers(torch.device("cpu"), [CUDA, CPU]) == [CPU]
    (found, options), other = onnx_session.providers(torch.device("cuda"), [CUDA, CPU])
    assert (found, options["device_id"], other) == (CUDA, 0, CPU)
    found, options = onnx_session.providers(torch.device("cuda", 2), ["TensorrtExecutionProvider", CUDA, CPU])[0]
    assert (found, options["device_id"]) == (CUDA, 2)


@pytest.mark.parametrize(("tf32", "benchmark"), [(False, False), (True, True)])
def test_the_cuda_provider_computes_as_torch_does(*, tf32: bool, benchmark: bool) -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=True):
            options = onnx_session.providers(torch.device("cuda"), [CUDA, CPU])[0][1]
    finally:
        matmul.allow_tf32 = before
    algorithms = "EXHAUSTIVE" if benchmark else "HEURISTIC"
    assert options == {"device_id": 0, "use_tf32": str(int(tf32)), "cudnn_conv_algo_search": algorithms}


def test_a_package_without_cuda_is_named() -> None:
    said = r'the net is on cuda:1, and the installed onnxruntime has no CUDA: .*"altprop\[gpu\]"; .* net.cpu\(\)'
    with pytest.raises(CompileError, match=said):
        onnx_session.installed(torch.device("cuda", 1))
    with pytest.raises(CompileError, match=r"runs on the CPU and on CUDA; the net is on mps: move it first"):
        onnx_session.installed(torch.device("mps"))


def test_a_provider_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime takes the CPU without a word."""

    class Silent:
        def __init__(self, *_: Any, providers: Any, **__: Any) -> None:
            assert providers[0][0] == CUDA

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Silent)
    with pytest.raises(CompileError, match=r"could not start its CUDA provider for cuda:0: install the CUDA and cuDNN"):
        onnx_session.open_engine(b"", torch.device("cuda", 0))


def test_a_net_is_refused_before_its_step_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    net = compiled("mlp", backend="onnxruntime")
    asked = []

    def refuse(device: torch.device) -> None:
        asked.append(device)
        raise CompileError("not here")

    monkeypatch.setattr(onnxruntime_backend, "installed", refuse)
    monkeypatch.setattr(type(net.compilations.compiler), "session", lambda *_: pytest.fail("made"))
    with pytest.raises(CompileError, match="not here"):
        steps(net, "mlp", 1)
    assert asked == [torch.device("cpu")]


def test_a_net_of_other_numbers_has_a_session_of_its_own() -> None:
    net = compiled("mlp", backend="onnxruntime")
    steps(net, "mlp", 1)
    first = net.compilations.present().executor("step")
    net.cpu()
    assert net.compilations.present().executor("step") is first
    x, y = batch_of((7,), 4)
    assert net.double().step(x.double(), y).dtype == torch.float64
    assert {id(kept.variant.executor("step")) for kept in net.compilations.variants} > {id(first)}


def test_a_program_of_another_device_is_compared_on_the_cpu() -> None:
    mode = FakeTensorMode()
    with mode:
        x = torch.empty(3, 2, device="cuda").t()
    with mode:
        module = make_fx(lambda x: [x + torch.ones(3, device=x.device)], tracing_mode="real")(x)
    made = on_cpu(Program("step", module, (Slot("input", "x"),), (Slot("output", "y"),)))
    values = [node.meta["val"] for node in made.graph.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert values
    assert {value.device.type for value in values} == {"cpu"}
    assert values[0].stride() == x.stride()
    torch.testing.assert_close(made.graph(torch.zeros(2, 3))[0], torch.ones(2, 3))
