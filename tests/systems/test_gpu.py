"""Nets on a GPU: what they learn is what they learn on the CPU, and a recorded step is the step."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

# Rules that draw noise or auxiliary parameters get other numbers on another device.
RULES = ["bp", "fa", "usf", "kp", "dfa", "sdfa", "drtp", "dkp", "reclra", "lra_e", "modular", "dfa_head"]
BATCH = 6


class Net(nn.Module):
    """Convolutions with norms, a residual, pooling and two layers behind them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.fc1 = nn.Linear(96, 12)
        self.fc2 = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2, 8, 8) to (N, 5)."""
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(x + self.conv2(x))
        x = functional.max_pool2d(x, 2).flatten(1)
        return self.fc2(self.drop(torch.tanh(self.fc1(x))))


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in full precision, by the same algorithm every time."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        yield


def batches(count: int, dtype: torch.dtype, device: str, size: int = BATCH) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    made = [
        (torch.randn(size, 2, 8, 8, generator=generator), torch.randint(0, 5, (size,), generator=generator))
        for _ in range(count)
    ]
    return [(x.to(device, dtype), y.to(device)) for x, y in made]


def compiled(rule: str, device: str, dtype: torch.dtype = torch.float64, **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    model = Net(options.pop("dropout", 0.0)).to(device, dtype)
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.05, momentum=0.9))
    example = torch.zeros(BATCH, 2, 8, 8, dtype=dtype, device=device)
    return altprop.compile(model, rule, example_inputs=(example,), **options)


def trained(
    net: altprop.LocalNet, device: str, dtype: torch.dtype = torch.float64
) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses = [float(net.step(*batch)) for batch in batches(5, dtype, device)]
    return losses, {key: value.cpu() for key, value in net.state_dict().items()}


@pytest.mark.parametrize("rule", RULES)
def test_learns_as_on_the_cpu(rule: str) -> None:
    torch.testing.assert_close(
        trained(compiled(rule, "cuda"), "cuda"), trained(compiled(rule, "cpu"), "cpu"), rtol=1e-8, atol=1e-9
    )


def test_feedback_does_not_depend_on_the_device() -> None:
    here, there = compiled("dfa", "cpu"), compiled("dfa", "cuda")
    assert list(here.feedback) == list(there.feedback)
    for name, feedback in there.feedback.items():
        assert feedback.device.type == "cuda"
        assert torch.equal(feedback.cpu(), here.feedback[name])


@pytest.mark.parametrize("rule", [*RULES, "wm", "hdfa"])
def test_recorded_steps_equal_eager_ones(rule: str) -> None:
    expected = trained(compiled(rule, "cuda"), "cuda")
    found = trained(compiled(rule, "cuda", backend="cudagraphs"), "cuda")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "make", [lambda: altprop.optim.SGD(lr=0.1, momentum=0.9, nesterov=True), lambda: altprop.optim.AdamW(lr=0.01)]
)
def test_recorded_steps_follow_rates_and_sizes(make: Callable[[], Any]) -> None:
    nets = [compiled("dkp", "cuda", backend=backend, optimizer=make()) for backend in ("eager", "cudagraphs")]
    sizes = [6, 6, 6, 4, 6, 4, 4, 6]
    for number, size in enumerate(sizes):
        batch = batches(number + 1, torch.float64, "cuda", size)[-1]
        for net in nets:
            net.optimizer.lr = 0.01 / (1 + number // 3)
        losses = [net.step(*batch) for net in nets]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(nets[1].state_dict(), nets[0].state_dict(), rtol=1e-9, atol=1e-10)


def test_a_recorded_loss_is_the_callers() -> None:
    net = compiled("dfa", "cuda", backend="cudagraphs")
    losses = [net.step(*batch) for batch in batches(5, torch.float64, "cuda")]
    assert len({float(loss) for loss in losses}) == 5


def test_recorded_dropout_is_drawn_anew() -> None:
    net = compiled("dfa", "cuda", backend="cudagraphs", dropout=0.5, optimizer=altprop.optim.SGD(lr=0.0))
    (batch,) = batches(1, torch.float64, "cuda")
    assert len({float(net.step(*batch)) for _ in range(6)}) > 4


def test_a_recording_is_made_anew_where_parameters_moved() -> None:
    nets = [compiled("dfa", "cuda", backend=backend) for backend in ("eager", "cudagraphs")]
    for number, batch in enumerate(batches(6, torch.float64, "cuda")):
        if number == 3:
            for net in nets:
                net.model.fc1.weight.data = net.model.fc1.weight.data.clone()
        losses = [net.step(*batch) for net in nets]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(nets[1].state_dict(), nets[0].state_dict(), rtol=1e-9, atol=1e-10)


def test_a_copy_of_a_recorded_net_goes_its_own_way() -> None:
    net = compiled("reclra", "cuda", backend="cudagraphs")
    data = batches(6, torch.float64, "cuda")
    for batch in data[:3]:
        net.step(*batch)
    copied = copy.deepcopy(net)
    for batch in data[3:]:
        net.step(*batch)
    for batch in data[3:]:
        copied.step(*batch)
    torch.testing.assert_close(copied.state_dict(), net.state_dict(), rtol=1e-9, atol=1e-10)


def test_moves_between_devices_with_its_state() -> None:
    net = compiled("dkp", "cpu")
    stay = copy.deepcopy(net)
    for batch in batches(2, torch.float64, "cpu"):
        net.step(*batch)
        stay.step(*batch)
    net.to("cuda")
    torch.testing.assert_close(trained(net, "cuda"), trained(stay, "cpu"), rtol=1e-8, atol=1e-9)


def test_a_checkpoint_of_the_gpu_goes_on_on_the_cpu() -> None:
    there = compiled("dkp", "cuda")
    trained(there, "cuda")
    here = compiled("dkp", "cpu")
    here.load_state_dict({key: value.cpu() for key, value in there.state_dict().items()})
    torch.testing.assert_close(trained(here, "cpu"), trained(there, "cuda"), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_usual_loop_under_autocast(dtype: torch.dtype) -> None:
    net = compiled("dfa", "cuda", torch.float32, optimizer=None)
    optimizer = torch.optim.SGD(net.param_groups(lr=0.1))
    scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16, init_scale=256.0)
    (batch,) = batches(1, torch.float32, "cuda")
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=dtype):
            loss = functional.cross_entropy(net(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
@pytest.mark.filterwarnings(r"ignore:\s*Online softmax is disabled")
def test_inductor_on_the_gpu() -> None:
    expected = trained(compiled("reclra", "cuda", torch.float32), "cuda", torch.float32)
    found = trained(compiled("reclra", "cuda", torch.float32, backend="inductor"), "cuda", torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_step_waits_for_nothing() -> None:
    """Neither a value is read back, nor one put there that waits."""
    net = compiled("dkp", "cuda")
    data = batches(3, torch.float64, "cuda")
    net.step(*data[0])
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in data:
            net.step(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
