"""What runs schedules in one process: serial equals `net.step`, threads equal serial."""

import copy
from pathlib import Path
from typing import Any

import kept
import pytest
import tiny
import torch
from made_schedules import BATCH, batches, compiled
from torch import Tensor, nn
from zoo import ZOO

import altprop
from altprop import Schedule, ScheduleError

pytestmark = pytest.mark.third


def trained(net: altprop.LocalNet, name: str, step: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    losses = [step(*batch) for batch in batches(name)]
    return losses, {key: value.clone() for key, value in net.state_dict().items()}


def by_step(name: str, rule: str) -> tuple[list[Tensor], dict[str, Tensor]]:
    net = copy.deepcopy(compiled(name, rule))
    return trained(net, name, net.step)


def by_schedule(
    name: str, rule: str, runtime: str, devices: int, microbatches: int = 1
) -> tuple[list[Tensor], dict[str, Tensor]]:
    net = copy.deepcopy(compiled(name, rule))
    running = net.schedule(devices=devices, microbatches=microbatches, batch=BATCH).runtime(runtime)
    try:
        return trained(net, name, running.step)
    finally:
        if runtime == "threads":
            running.close()


# Where projections of one error are joined into one product (dense feedback of small nets), bits may differ.
EXACT = [
    ("mlp", "bp"),
    ("mlp", "fa"),
    ("residual", "dfa"),
    ("residual", "reclra"),
    ("residual", "bp"),
    ("encoder", "fa"),
]
JOINED = [("nine", "dfa"), ("nine", "reclra"), ("encoder", "dfa"), ("nine", "drtp"), ("nine", "local_loss")]


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize(("name", "rule"), EXACT)
def test_serial_is_bit_identical_with_net_step(name: str, rule: str, devices: int) -> None:
    losses, state = by_schedule(name, rule, "serial", devices)
    expected_losses, expected = by_step(name, rule)
    assert all(torch.equal(a, b) for a, b in zip(losses, expected_losses, strict=True))
    assert state.keys() == expected.keys()
    assert not [key for key in state if not torch.equal(state[key], expected[key])]


@pytest.mark.parametrize(("name", "rule"), JOINED)
def test_serial_equals_net_step_but_for_joined_products(name: str, rule: str) -> None:
    losses, state = by_schedule(name, rule, "serial", 3)
    expected_losses, expected = by_step(name, rule)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize(("name", "rule"), [("nine", "dfa"), ("residual", "reclra"), ("encoder", "bp")])
def test_threads_are_bit_identical_with_serial(name: str, rule: str, microbatches: int) -> None:
    losses, state = by_schedule(name, rule, "threads", 3, microbatches)
    expected_losses, expected = by_schedule(name, rule, "serial", 3, microbatches)
    assert all(torch.equal(a, b) for a, b in zip(losses, expected_losses, strict=True))
    assert not [key for key in state if not torch.equal(state[key], expected[key])]


@pytest.mark.parametrize("rule", ["dfa", "fa", "reclra"])
@pytest.mark.parametrize("devices", [1, 3])
def test_microbatches_add_up_to_the_batch(rule: str, devices: int) -> None:
    """Without batch norm, micro-batches change nothing but the rounding."""
    losses, state = by_schedule("nine", rule, "serial", devices, microbatches=4)
    expected_losses, expected = by_step("nine", rule)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)


def test_sum_losses_add_up() -> None:
    def total(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum()

    total.reduction = "sum"  # type: ignore[attr-defined]
    torch.manual_seed(0)
    model = tiny.mlp(2)
    optimizer = altprop.optim.SGD(lr=0.01)
    nets = [
        kept.compile(m, rule="dfa", loss=total, example_inputs=(torch.zeros(3, 7),), optimizer=optimizer)
        for m in (model, copy.deepcopy(model))
    ]
    inputs, target = torch.randn(BATCH, 7), torch.randn(BATCH, 4)
    runtime = nets[0].schedule(devices=2, microbatches=2, batch=BATCH, target=target).runtime()
    for _ in range(2):
        torch.testing.assert_close(runtime.step(inputs, target), nets[1].step(inputs, target))
    torch.testing.assert_close(dict(nets[0].model.named_parameters()), dict(nets[1].model.named_parameters()))


class Tied(nn.Module):
    """The first and the last product share their weight, and live on different devices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.middle = nn.Linear(6, 6)
        self.last = nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))


def test_tied_parameters_travel() -> None:
    torch.manual_seed(0)
    model = Tied()
    optimizer = altprop.optim.Adam(lr=0.01, fused=False)
    nets = [
        kept.compile(m, rule="fa", example_inputs=(torch.zeros(3, 6),), optimizer=optimizer)
        for m in (model, copy.deepcopy(model))
    ]
    schedule = nets[0].schedule(devices=3, batch=BATCH)
    assert "SEND parameter:first.weight" in str(schedule)
    for runtime in (schedule.runtime("serial"), schedule.runtime("threads")):
        for _ in range(2):
            inputs, target = torch.randn(BATCH, 6), torch.randint(0, 6, (BATCH,))
            assert torch.equal(runtime.step(inputs, target), nets[1].step(inputs, target))
    for one, other in zip(nets[0].model.parameters(), nets[1].model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "rule"), [("shared_twice", "dfa"), ("shared_twice", "bp"), ("dict_output", "dfa")])
def test_the_zoo_runs_on_three_devices(name: str, rule: str) -> None:
    """A module called twice, and a model with several outputs."""
    case = ZOO[name]
    nets = [
        kept.compile(
            case.model(),
            rule=rule,
            loss=case.loss,
            example_inputs=case.inputs(4),
            optimizer=altprop.optim.SGD(lr=0.01, fused=False),
        )
        for _ in range(2)
    ]
    inputs, target = case.inputs(4), case.target(4)
    runtime = nets[0].schedule(devices=3, batch=4, target=target).runtime()
    torch.testing.assert_close(runtime.step(inputs, target), nets[1].step(inputs, target), rtol=0, atol=1e-12)
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=1e-10, atol=1e-12)


def test_batch_statistics_are_those_of_micro_batches() -> None:
    """Batch norm sees one micro-batch at a time, and its running statistics move once for each."""
    _, state = by_schedule("residual", "dfa", "serial", 2, microbatches=4)
    _, whole = by_step("residual", "dfa")
    name = "model.blocks.0.norm1.num_batches_tracked"
    assert state[name] == 4 * whole[name] == 12


def test_edited_text_runs() -> None:
    """A program read from text and bound to a net is run as it stands."""
    net = copy.deepcopy(compiled("mlp", "dfa"))
    schedule = net.schedule(devices=2, batch=BATCH)
    bound = Schedule.parse(str(schedule)).bind(schedule)
    inputs, target = batches("mlp")[0]
    assert torch.isfinite(bound.runtime().step(inputs, target))


def test_no_autograd_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("autograd was called")

    net = copy.deepcopy(compiled("nine", "dfa"))
    runtime = net.schedule(devices=2, batch=BATCH).runtime()
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    runtime.step(*batches("nine")[0])
    assert all(parameter.grad is None for parameter in net.parameters())


# Checkpoints


@pytest.mark.parametrize("devices", [1, 3])
def test_checkpoint_goes_on_bit_for_bit(tmp_path: Path, devices: int) -> None:
    """Saved on two devices, loaded on another number; the unfinished folder of a killed run does not count."""
    net = copy.deepcopy(compiled("residual", "reclra"))
    runtime = net.schedule(devices=2, batch=BATCH).runtime()
    data = batches("residual", 4)
    for index, batch in enumerate(data):
        runtime.step(*batch)
        if index == 1:
            assert runtime.save(tmp_path).name == "step-00000002"
    (tmp_path / "unfinished-step-00000009").mkdir()
    (tmp_path / "step-00000008").mkdir()
    other = copy.deepcopy(compiled("residual", "reclra"))
    resumed = other.schedule(devices=devices, batch=BATCH).runtime("threads")
    assert resumed.resume(tmp_path) == 2
    for batch in data[2:]:
        resumed.step(*batch)
    assert not [k for k, v in net.state_dict().items() if not torch.equal(v, other.state_dict()[k])]


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    runtime = copy.deepcopy(compiled("mlp", "dfa")).schedule(devices=1, batch=BATCH).runtime()
    assert runtime.resume(tmp_path / "none") == 0


def test_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    copy.deepcopy(compiled("mlp", "dfa")).schedule(devices=1, batch=BATCH).runtime().save(tmp_path)
    other = copy.deepcopy(compiled("nine", "dfa")).schedule(devices=1, batch=BATCH).runtime()
    with pytest.raises(ScheduleError, match="step-00000000 is a checkpoint of another net or optimizer: "):
        other.resume(tmp_path)


# Bad input


def test_parsed_schedule_needs_a_net() -> None:
    parsed = Schedule.parse(str(compiled("mlp", "dfa").schedule(devices=2, batch=BATCH)))
    with pytest.raises(ScheduleError, match="a schedule from text has no operators: bind it"):
        parsed.runtime()


def test_schedule_of_another_net_is_refused() -> None:
    parsed = Schedule.parse(str(compiled("mlp", "dfa").schedule(devices=2, batch=BATCH)))
    with pytest.raises(ScheduleError, match="the schedule was made for operators with digest"):
        parsed.bind(compiled("nine", "dfa").schedule(devices=2, batch=BATCH))


def test_batch_of_another_size_is_refused() -> None:
    runtime = copy.deepcopy(compiled("mlp", "dfa")).schedule(devices=2, batch=BATCH).runtime()
    with pytest.raises(ScheduleError, match=r"input input has shape \(5, 7\); the schedule was made for \(8, 7\)"):
        runtime.step(torch.zeros(5, 7), torch.zeros(5, dtype=torch.int64))


def test_steps_need_an_optimizer() -> None:
    schedule = tiny.compiled("mlp", "dfa").schedule(devices=2, batch=BATCH)
    assert schedule.simulate().makespan > 0
    with pytest.raises(ScheduleError, match=r"a schedule runs whole steps: give altprop\.compile an optimizer="):
        schedule.runtime()


def test_unknown_runtime_is_refused() -> None:
    with pytest.raises(ScheduleError, match='there is no runtime "fast"; there are serial, threads'):
        compiled("mlp", "dfa").schedule(devices=2, batch=BATCH).runtime("fast")


def test_nothing_compiled_yet() -> None:
    net = altprop.compile(tiny.mlp(1), rule="dfa")
    with pytest.raises(altprop.CompileError, match="nothing is compiled yet"):
        net.schedule(devices=2)


def test_thread_that_fails_ends_the_step_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = copy.deepcopy(compiled("nine", "dfa")).schedule(devices=3, batch=BATCH).runtime("threads", timeout=30)
    place = next(i for i, (task, _) in enumerate(runtime.workers[1].actions) if task.kind == "F")

    def fail() -> None:
        raise RuntimeError("out of memory")

    task, good = runtime.workers[1].actions[place]
    runtime.workers[1].actions[place] = task, fail
    with pytest.raises(ScheduleError, match='device 1 failed in "F fc4 mb 0": RuntimeError: out of memory'):
        runtime.step(*batches("nine")[0])
    runtime.workers[1].actions[place] = task, good
    assert torch.isfinite(runtime.step(*batches("nine")[0]))


def test_thread_that_waits_too_long_says_for_what() -> None:
    runtime = copy.deepcopy(compiled("nine", "dfa")).schedule(devices=2, batch=BATCH).runtime("threads", timeout=0.5)
    actions = runtime.workers[1].actions
    place = next(i for i, (task, _) in enumerate(actions) if task.kind == "SEND")
    actions[place] = actions[place][0], lambda: None
    with pytest.raises(
        ScheduleError, match=r"device 0 waited 0.5 s for mul_tensor@0 from device 1, which did not send"
    ):
        runtime.step(*batches("nine")[0])
