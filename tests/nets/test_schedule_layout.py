"""Images that are channels last stay so where a step is cut into tasks, and on the way between devices."""

import copy
import re
from functools import cache

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.ir.schedule import is_resident
from altprop.passes.tune import channels_last
from altprop.runtime.parallel.wire import pack

pytestmark = pytest.mark.third

BATCH = 8


def model(last: bool) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)),
    )
    return made.to(memory_format=torch.channels_last) if last else made


@cache
def compiled(rule: str, last: bool) -> altprop.LocalNet:
    x = torch.zeros(4, 3, 12, 12)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9, fused=False)
    return kept.compile(model(last), rule, example_inputs=(x,), optimizer=optimizer)


def is_laid(strides: tuple[int, ...]) -> bool:
    return strides[1] == 1 and strides[3] > 1


@pytest.mark.parametrize(("rule", "last"), [("bp", False), ("dfa", True), ("reclra", False)])
def test_pieces_are_laid_out_as_the_step_is(rule: str, last: bool) -> None:
    """Every image that crosses between tasks or devices is channels last; a transfer of it is no copy."""
    net = compiled(rule, last)
    schedule = net.schedule(devices=3, microbatches=2, batch=BATCH).programs
    crossing = {n for _, t in schedule.tasks() for n in (*t.reads, *t.writes) if not is_resident(n)}
    forms = {name: schedule.form(name) for name in crossing if ":" not in name}
    images = {name: form for name, form in forms.items() if len(form.shape) == 4 and form.shape[2] > 2}
    assert len(images) > 6
    assert not [name for name, form in images.items() if not is_laid(form.strides)]
    assert {form.shape[0] for form in images.values()} == {BATCH // 2}
    sent = [schedule.form(t.region) for _, t in schedule.tasks() if t.kind == "SEND" and t.region in images]
    assert sent
    for form in sent:
        value = torch.empty_strided(form.shape, form.strides)
        assert pack(value, form).data_ptr() == value.data_ptr()


@pytest.mark.parametrize(("rule", "last"), [("bp", False), ("dfa", True), ("reclra", False)])
def test_serial_and_threads_equal_the_step(rule: str, last: bool) -> None:
    """Bit for bit, and as the traced forms say."""
    nets = [copy.deepcopy(compiled(rule, last)) for _ in range(3)]
    generator = torch.Generator().manual_seed(1)
    names = ("serial", "threads")
    runs = [net.schedule(devices=2, batch=BATCH).runtime(name) for net, name in zip(nets, names, strict=False)]
    for _ in range(2):
        x, y = torch.randn(BATCH, 3, 12, 12, generator=generator), torch.randint(0, 5, (BATCH,), generator=generator)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        expected = nets[2].step(x, y)
        assert all(torch.equal(run.step(x, y), expected) for run in runs)
    state = nets[2].state_dict()
    for net in nets[:2]:
        assert not [key for key, value in net.state_dict().items() if not torch.equal(value, state[key])]


def test_values_come_as_their_forms_say() -> None:
    net = copy.deepcopy(compiled("reclra", False))
    running = net.schedule(devices=2, microbatches=2, batch=BATCH).runtime("serial")
    seen = 0
    for worker in running.workers:
        worker._free = lambda names: None  # keeps everything
        worker.actions = [(task, worker._bind([task])) for task, _ in worker.actions if task.kind != "FREE"]
    running.reorder()
    running.step(torch.randn(BATCH, 3, 12, 12), torch.zeros(BATCH, dtype=torch.int64))
    for worker in running.workers:
        for name, value in worker.values.items():
            if isinstance(value, torch.Tensor) and ":" not in name and value.dim() == 4:
                form = running.schedule.form(name)
                assert (tuple(value.shape), value.stride()) == (form.shape, form.strides), name
                seen += 1
    assert seen > 6


def test_a_layout_is_chosen_for_the_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net = compiled("dfa", False)

    def laid(devices: list[str]) -> bool:
        schedule = net.schedule(devices=devices, batch=BATCH)
        return bool(re.search("channels_last", "".join(p.program.graph.code for p in schedule.lowered.pieces.values())))

    assert laid(["cpu", "cpu"])
    assert not laid(["cpu", "cuda:0"])
    monkeypatch.setattr(channels_last, "_LEAST_SHARE", 1e9)
    assert not laid(["cpu", "cpu"])


def test_the_batch_stays_symbolic() -> None:
    """Traced values are made anew where a layout changes; no operator may fix the batch there."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.relu(self.conv(x))
            return self.fc(nn.functional.pad(z[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)).mean((2, 3)))

    optimizer = altprop.optim.SGD(lr=0.1)
    net = kept.compile(Padded(), "dfa", example_inputs=(torch.zeros(4, 3, 12, 12),), optimizer=optimizer)
    copied = copy.deepcopy(net)
    running = net.schedule(devices=2, microbatches=2, batch=BATCH).runtime()
    x, y = torch.randn(BATCH, 3, 12, 12), torch.zeros(BATCH, dtype=torch.int64)
    assert net.graph.captured.batch.node.expr.free_symbols
    torch.testing.assert_close(running.step(x, y), copied.step(x, y))
