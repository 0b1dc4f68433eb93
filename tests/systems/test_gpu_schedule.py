"""Schedules on a GPU: streams, CPU and GPU as two devices, and ranks; all equal the serial run on the CPU."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import ranks
import tiny
import torch
from processes import HANG
from torch import Tensor

import altprop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

BATCH = 8
PAIRS = [["cuda:0", "cuda:0"], ["cpu", "cuda:0"], ["cuda:0", "cpu"], ["cuda:0"] * 3, ["cpu", "cuda:0", "cuda:0"]]
RUNTIMES = ["serial", "threads", "streams"]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in full precision."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        yield


@cache
def compiled(name: str, rule: str) -> altprop.LocalNet:
    torch.manual_seed(0)
    make, shape = tiny.MODELS[name]
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    return altprop.compile(make(), rule=rule, example_inputs=(torch.zeros(shape),), optimizer=optimizer)


def batches(name: str, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    _, shape = tiny.MODELS[name]
    return [
        (torch.randn(BATCH, *shape[1:], generator=generator), torch.randint(0, 4, (BATCH,), generator=generator))
        for _ in range(count)
    ]


def trained(
    name: str, rule: str, devices: Any, runtime: str, microbatches: int = 2
) -> tuple[list[float], dict[str, Any]]:
    net = copy.deepcopy(compiled(name, rule))
    running = net.schedule(devices=devices, microbatches=microbatches, batch=BATCH).runtime(runtime)
    losses = [float(running.step(*batch)) for batch in batches(name)]
    if runtime == "threads":
        running.close()
    return losses, {key: value.cpu() for key, value in net.state_dict().items()}


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("devices", PAIRS, ids=" ".join)
@pytest.mark.parametrize(("name", "rule"), [("nine", "dfa"), ("nine", "bp"), ("residual", "reclra")])
def test_devices_equal_the_serial_run(name: str, rule: str, devices: list[str], runtime: str) -> None:
    assert_equal(trained(name, rule, devices, runtime), trained(name, rule, len(devices), "serial"))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("name", "rule"), [("nine", "reclra"), ("residual", "dfa")])
def test_a_net_that_was_compiled_on_the_gpu(name: str, rule: str, runtime: str) -> None:
    """A number of devices means streams of the net's own GPU; inputs may be there or not."""
    make, shape = tiny.MODELS[name]
    torch.manual_seed(0)
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    net = altprop.compile(make().cuda(), rule=rule, example_inputs=(torch.zeros(shape).cuda(),), optimizer=optimizer)
    running = net.schedule(devices=2, microbatches=2, batch=BATCH).runtime(runtime)
    assert running.schedule.devices == ("cuda:0", "cuda:0")
    losses = []
    for index, (inputs, target) in enumerate(batches(name)):
        there = "cuda" if index % 2 else "cpu"
        losses.append(float(running.step(inputs.to(there), target.to(there))))
    state = {key: value.cpu() for key, value in net.state_dict().items()}
    assert_equal((losses, state), trained(name, rule, 2, "serial"))


@pytest.mark.parametrize("runtime", ["streams", "threads"])
def test_memory_is_not_used_anew_too_early(runtime: str) -> None:
    """Many micro-batches in flight on two streams, large enough that their memory goes round."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(m for _ in range(6) for m in (torch.nn.Linear(512, 512), torch.nn.Tanh())))
    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    nets = [
        altprop.compile(
            copy.deepcopy(model).cuda(),
            "dfa",
            example_inputs=(torch.zeros(4, 512).cuda(),),
            loss="mse",
            optimizer=optimizer,
        )
        for _ in range(2)
    ]
    runs = [
        net.schedule(devices=2, microbatches=8, batch=1024, target=torch.zeros(4, 512).cuda()).runtime(name)
        for net, name in zip(nets, (runtime, "serial"), strict=True)
    ]
    generator = torch.Generator("cuda").manual_seed(0)
    for _ in range(20):
        inputs, target = (torch.randn(1024, 512, generator=generator, device="cuda") for _ in range(2))
        found, expected = (run.step(inputs, target) for run in runs)
        assert_equal(found, expected)
    assert_equal(dict(nets[0].model.named_parameters()), dict(nets[1].model.named_parameters()))


def test_everything_lives_with_its_region() -> None:
    net = copy.deepcopy(compiled("nine", "dfa"))
    before = list(net.model.parameters())
    running = net.schedule(devices=["cpu", "cuda:0"], batch=BATCH).runtime("threads")
    running.step(*batches("nine")[0])
    homes = running.schedule.homes
    bindings = net.tensors().bindings
    for name, home in homes.items():
        if not name.startswith("constant:"):
            assert bindings.get(ranks.slot_of(name)).device.type == ("cpu", "cuda")[home], name
    assert all(one is other for one, other in zip(before, net.model.parameters(), strict=True))
    assert {p.device.type for p in net.feedback_parameters()} == {"cpu", "cuda"}
    running.close()


def test_a_net_comes_together_for_evaluation_and_goes_on() -> None:
    nets = [copy.deepcopy(compiled("nine", "dfa")) for _ in range(2)]
    runs = [
        net.schedule(devices=devices, batch=BATCH).runtime("streams")
        for net, devices in zip(nets, (["cpu", "cuda:0"], 2), strict=True)
    ]
    for batch in batches("nine"):
        assert_equal([float(run.step(*batch)) for run in runs[:1]], [float(run.step(*batch)) for run in runs[1:]])
        nets[0].to("cpu").eval()
        assert_equal(nets[0](batch[0]), nets[1].eval()(batch[0]))
        for net in nets:
            net.train()


@pytest.mark.parametrize("devices", [1, ["cuda:0", "cuda:0"]])
def test_checkpoints_go_from_device_to_device(devices: Any, tmp_path: Path) -> None:
    nets = [copy.deepcopy(compiled("nine", "dfa")) for _ in range(2)]
    first = nets[0].schedule(devices=["cpu", "cuda:0"], batch=BATCH).runtime("streams")
    data = batches("nine", 4)
    for batch in data[:2]:
        first.step(*batch)
    first.save(tmp_path)
    second = nets[1].schedule(devices=devices, batch=BATCH).runtime("streams")
    assert second.resume(tmp_path) == 2
    for batch in data[2:]:
        assert_equal(float(first.step(*batch)), float(second.step(*batch)))


def test_autocast_is_in_the_programs_alone() -> None:
    plain = trained("nine", "dfa", ["cuda:0", "cuda:0"], "streams")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        cast = trained("nine", "dfa", ["cuda:0", "cuda:0"], "streams")
    assert_equal(cast, plain)


def test_tasks_are_timed_on_the_device() -> None:
    net = copy.deepcopy(compiled("nine", "dfa"))
    schedule = net.schedule(devices=["cuda:0", "cpu"], batch=BATCH)
    costs = schedule.measure(*batches("nine")[0], repeats=2)
    assert schedule.simulate(costs).makespan > 0


def test_operators_of_the_cpu_alone_are_refused() -> None:
    """The fused attention of the CPU, captured there, has no twin on the GPU."""
    model = tiny.Encoder()
    net = altprop.compile(
        model, rule="dfa", example_inputs=(torch.zeros(3, 6, 8),), optimizer=altprop.optim.SGD(lr=0.1)
    )
    if "flash_attention_for_cpu" not in str(net.graph.programs["step"]):
        pytest.skip("this torch did not choose the fused attention")
    with pytest.raises(altprop.ScheduleError, match="which cuda does not have: move the model to a cuda device before"):
        net.schedule(devices=["cuda:0", "cpu"], batch=BATCH).runtime("streams")


@pytest.mark.parametrize(
    ("scenario", "count"), [("nccl", 1), ("gpu_and_cpu", 2), ("one_gpu", 2)], ids=["nccl", "gpu and cpu", "one gpu"]
)
def test_ranks_with_gpus(scenario: str, count: int, tmp_path: Path) -> None:
    """NCCL with one rank; over gloo a rank on the CPU beside one on the GPU, and two that share the GPU."""
    script = Path(ranks.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(script), scenario, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=HANG
    )
    assert not done.returncode, done.stderr[-3000:]
    net = ranks.fresh("nine", "dfa")
    running = net.schedule(devices=count, microbatches=2, batch=ranks.BATCH).runtime("serial")
    losses = [float(running.step(*batch)) for batch in ranks.batches("nine")]
    kinds = {"nccl": ["cuda"], "gpu_and_cpu": ["cpu", "cuda"], "one_gpu": ["cuda", "cuda"]}[scenario]
    for rank in range(count):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        assert found["place"] == kinds[rank]
        if found["losses"][0] is not None:
            assert_equal(found["losses"], losses)
        held = {name: value.cpu() for name, value in found["held"].items()}
        assert_equal(held, ranks.held(net, held))
