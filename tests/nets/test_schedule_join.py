"""Updates that serve several micro-batches at once: the same numbers, fewer products."""

import copy
import dataclasses
from collections import Counter
from typing import Any, ClassVar

import kept
import pytest
import torch
from torch import Tensor, nn

import altprop
from altprop import ScheduleError
from altprop.compiler.schedule import join as joining
from altprop.rules import About, Local
from altprop.rules.dfa import DirectFeedbackAlignment

pytestmark = pytest.mark.third

BATCH, MICROBATCHES = 16, 4
SGD = altprop.optim.SGD(lr=0.1, momentum=0.9)


class Words(nn.Module):
    """An embedding, attention, layer norms, a wide layer at every position, and a last one for the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(self.words(x)).mean(1))


class Images(nn.Module):
    """Convolutions with batch norm and with group norm, and a wide layer behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.fc1, self.fc2 = nn.Linear(8 * 36, 200), nn.Linear(200, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.tanh(self.norm2(self.conv2(x)))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class Gates(nn.Module):
    """Two layers whose product is one region, "b+g", behind an activity that lies transposed in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.g = nn.Linear(6, 128), nn.Linear(128, 128), nn.Linear(128, 128)
        self.c = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x).transpose(1, 2)).transpose(1, 2)
        return self.c(torch.tanh(self.b(h) * torch.sigmoid(self.g(h)))).mean(1)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 64), nn.Tanh(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 5))


def made(name: str, rule: str) -> tuple[altprop.LocalNet, Tensor, Tensor]:
    torch.manual_seed(0)
    models: dict[str, tuple[Any, Any]] = {
        "plain": (plain, torch.randn(BATCH, 12, dtype=torch.float64)),
        "images": (Images, torch.randn(BATCH, 1, 6, 6, dtype=torch.float64)),
        "gates": (Gates, torch.randn(BATCH, 5, 6, dtype=torch.float64)),
        "words": (Words, torch.randint(0, 300, (BATCH, 7))),
    }
    make, x = models[name]
    model = make().double()
    return kept.compile(model, rule=rule, example_inputs=(x,), optimizer=SGD), x, torch.randint(0, 5, (BATCH,))


def after(net: altprop.LocalNet, step: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    losses = [step(x, y) for _ in range(3)]
    return {"losses": torch.stack(losses), **{key: value.clone() for key, value in net.state_dict().items()}}


def updates(schedule: altprop.Schedule) -> Counter[str]:
    return Counter(task.region for _, task in schedule.programs.tasks() if task.kind == "U")


@pytest.mark.parametrize("rule", ["reclra", "dfa", "kp", "bp"])
@pytest.mark.parametrize("name", ["plain", "images", "words", "gates"])
def test_a_joint_update_is_the_sum_of_the_single_ones(name: str, rule: str) -> None:
    net, x, y = made(name, rule)
    found = []
    for count in (1, 2, 4):
        trained = copy.deepcopy(net)
        schedule = trained.schedule(devices=2, microbatches=MICROBATCHES, join=count, batch=BATCH)
        found.append((after(trained, schedule.runtime("serial").step, x, y), updates(schedule)))
    (single, every), *joint = found
    assert set(every.values()) == {MICROBATCHES}
    for values, some in joint:
        assert some.total() < every.total()
        for key, value in single.items():
            torch.testing.assert_close(values[key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_only_updates_that_gain_are_joined() -> None:
    net, _, _ = made("images", "dfa")
    found = updates(net.schedule(devices=2, microbatches=MICROBATCHES, join=MICROBATCHES, batch=BATCH))
    assert found["fc1"] == 1
    assert found["conv1"] == MICROBATCHES  # batch norm mixes the samples of a micro-batch
    assert found["conv2"] == MICROBATCHES  # a filter is smaller than its images


@dataclasses.dataclass(frozen=True)
class MeanDFA(DirectFeedbackAlignment):
    """Updates that divide by the samples that they see: those of one micro-batch."""

    about: ClassVar[About] = About("test_mean_dfa", listed=False)

    def update(self, local: Local, e: Tensor) -> dict[str, Tensor]:
        return {name: moved / local.z.shape[0] for name, moved in local.parameter_vjp(e).items()}


def test_an_update_that_counts_samples_is_not_joined() -> None:
    net, x, y = made("plain", "test_mean_dfa")
    found = []
    for count in (1, 4):
        trained = copy.deepcopy(net)
        schedule = trained.schedule(devices=2, microbatches=MICROBATCHES, join=count, batch=BATCH)
        found.append(after(trained, schedule.runtime("serial").step, x, y))
        assert updates(schedule)["2"] == MICROBATCHES
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-9, atol=1e-9, msg=key)


class Neighbours(nn.Module):
    """Compares each sample with the next: one line less than there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.a(x[1:] - x[:-1])))


def test_lines_that_are_not_the_samples_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_reads", lambda *_: 0)  # whatever it gains
    x = torch.randn(BATCH, 5, 6, dtype=torch.float64)
    net = kept.compile(
        Neighbours().double(), "bp", example_inputs=(x,), loss=lambda o, _: o.square().sum(), optimizer=SGD
    )
    schedule = net.schedule(devices=2, microbatches=4, join=4, batch=BATCH, target=torch.zeros(BATCH))
    assert set(updates(schedule).values()) == {MICROBATCHES}
    assert schedule.runtime("serial").step(x, torch.zeros(BATCH)) > 0


def test_a_joint_update_reads_all_its_microbatches_and_comes_behind_them() -> None:
    net, _, _ = made("plain", "dfa")
    schedule = net.schedule(devices=1, microbatches=4, join=2, batch=BATCH)
    (program,) = schedule.programs.programs
    places = [place for place, task in enumerate(program) if (task.kind, task.region) == ("U", "2")]
    reads = [{name.rpartition("@")[2] for name in program[place].reads if "@" in name} for place in places]
    assert reads == [{"0", "1"}, {"2", "3"}]
    ends = [max(p for p, t in enumerate(program) if t.kind == "F" and t.microbatch == last) for last in (1, 3)]
    assert all(place > end for place, end in zip(places, ends, strict=True))


def test_threads_run_what_the_text_of_a_joint_schedule_says() -> None:
    net, x, y = made("plain", "reclra")
    nets = [copy.deepcopy(net) for _ in range(2)]
    schedules = [one.schedule(devices=2, microbatches=4, join=4, batch=BATCH) for one in nets]
    again = altprop.Schedule.parse(str(schedules[1])).bind(schedules[1])
    threads = again.runtime("threads")
    try:
        found = after(nets[1], threads.step, x, y)
    finally:
        threads.close()
    expected = after(nets[0], schedules[0].runtime("serial").step, x, y)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_joined_products_are_counted_once() -> None:
    net, _, _ = made("plain", "dfa")
    single, joint = (
        net.schedule(devices=1, microbatches=4, join=join, batch=BATCH).programs.tasks() for join in (1, 4)
    )
    flops = [
        sum(task.flops for _, task in tasks if task.kind == "U" and task.region == "2") for tasks in (single, joint)
    ]
    product = 2 * BATCH * 64 * 64
    assert all(product < count < 1.1 * product for count in flops)


@pytest.mark.parametrize("join", [0, 3, 8])
def test_a_number_that_does_not_divide_is_refused(join: int) -> None:
    net, _, _ = made("plain", "dfa")
    with pytest.raises(ScheduleError, match=f"join={join}: .* of 4 micro-batches"):
        net.schedule(devices=2, microbatches=4, join=join, batch=BATCH)


def test_known_orders_of_pipelines_are_refused() -> None:
    net, _, _ = made("plain", "bp")
    with pytest.raises(ScheduleError, match='join=2: the order "1f1b"'):
        net.schedule(devices=2, microbatches=4, join=2, batch=BATCH, order="1f1b")
