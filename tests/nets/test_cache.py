"""The cache across processes: what a second compilation takes from files is what the first one made."""

import copy
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_nets import CLASSES, IMAGES, ROWS, Net, assert_same, compiled, derives, entry_of, fill, mlp, steps
from torch import nn

import altprop
from altprop.compiler.cache.cache_folder import wanted_folder, without_cache
from altprop.ir.graph import ErrorGraph
from altprop.rules import Rule
from altprop.rules.base import RULES

pytestmark = pytest.mark.third


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALTPROP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[torch.Tensor]]:
    """A folder with one compilation, and what its steps give."""
    home = tmp_path_factory.mktemp("cache") / "kept"
    return home, fill(home)


@pytest.fixture
def expected(made: tuple[Path, list[torch.Tensor]], folder: Path) -> list[torch.Tensor]:
    """Copies that folder, and returns what its steps give."""
    shutil.copytree(made[0], folder)
    return made[1]


@pytest.mark.parametrize(
    ("make", "rule", "inputs"),
    [
        (Net, "reclra", IMAGES),
        (mlp, "fa", ROWS),
        (mlp, "wm", ROWS),  # draws noise
        (mlp, "hdfa", ROWS),  # takes turns
        (mlp, "local_loss", ROWS),  # has parameters of its own
    ],
)
def test_a_second_compilation_trains_to_the_same_bits(make: Any, rule: str, inputs: torch.Tensor) -> None:
    first = compiled(make(), rule, inputs)
    expected = steps(first, inputs)
    second = compiled(make(), rule, inputs)
    found = steps(second, inputs)
    assert derives(first)
    assert not derives(second)
    assert_same(found, expected)


def test_everything_works_from_files() -> None:
    """The forward and the update, both in one, a copy, the table, the drawing, the plan and its file."""
    first = compiled(Net(), inputs=IMAGES)
    nn.functional.cross_entropy(first(IMAGES), CLASSES).backward()
    first.backward(IMAGES, CLASSES)
    second = compiled(Net(), inputs=IMAGES)
    for net in (first, second):
        net.zero_grad(set_to_none=True)
    gradients = []
    for net in (first, second):
        torch.manual_seed(2)
        nn.functional.cross_entropy(net(IMAGES), CLASSES).backward()
        net.backward(IMAGES, CLASSES)
        gradients.append([p.grad for p in net.model.parameters() if p.grad is not None])
    assert_same(gradients[0], gradients[1])
    assert str(second.explain()) == str(first.explain())
    assert str(second.plan) == str(first.plan)
    assert second.graph.dot() == first.graph.dot()
    assert list(second.history) == list(first.history)
    assert set(second.state_dict()) == set(first.state_dict())
    assert not derives(second)
    assert_same(steps(copy.deepcopy(second), IMAGES), steps(copy.deepcopy(first), IMAGES))


def test_what_is_in_no_file_is_derived_when_it_is_asked_for() -> None:
    first = compiled(mlp())
    steps(first)
    second = compiled(mlp())
    steps(second)
    one, other = first.measure(ROWS, CLASSES), second.measure(ROWS, CLASSES)
    assert str(one) == str(other)
    assert derives(second)
    assert str(second.graph) == str(first.graph)
    for stage, graph in second.history.items():
        assert isinstance(graph, ErrorGraph)
        assert str(graph) == str(first.history[stage]), stage
    assert str(second.schedule(devices=2)) == str(first.schedule(devices=2))


def test_a_shortcut_passes_no_weights_from_files_either() -> None:
    def residual() -> tuple[altprop.LocalNet, bool]:
        torch.manual_seed(0)
        found = altprop.compile(Shortcut(), example_inputs=(ROWS,))
        return found, derives(found)

    (first, _), (second, again) = residual(), residual()
    assert not again
    assert second.graph.connections == first.graph.connections
    assert {c.feedback.kind for c in second.graph.connections} == {"forward", "identity"}


class Shortcut(nn.Module):
    """Four layers; what the first made is added to what the third makes."""

    def __init__(self) -> None:
        super().__init__()
        width = ROWS.shape[1]
        self.one, self.two, self.three = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.one(x))
        return self.out(torch.tanh(z + self.three(torch.tanh(self.two(z)))))


def test_programs_are_kept_as_they_are_made(folder: Path) -> None:
    net = compiled(mlp())
    (entry,) = folder.iterdir()
    assert {path.name for path in entry.iterdir()} == {"graph.json"}
    net.step(ROWS, CLASSES)
    assert {path.name for path in entry.iterdir()} == {"graph.json", "step.txt", "step.safetensors"}
    other = compiled(mlp())
    other.backward(ROWS, CLASSES)  # was not made before
    assert derives(other)
    assert (entry / "backward.txt").exists()


def test_tensors_that_a_loss_holds_are_kept() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0])
    found = []
    for _ in range(2):
        net = compiled(mlp(), loss=nn.CrossEntropyLoss(weights))
        net.backward(ROWS, CLASSES)
        found.append(steps(net))
    assert not derives(net)
    assert_same(found[0], found[1])
    other = compiled(mlp(), loss=nn.CrossEntropyLoss(weights * 2))
    assert derives(other)


def test_off_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("off", "OFF"):
        monkeypatch.setenv("ALTPROP_CACHE", value)
        compiled(mlp()).step(ROWS, CLASSES)
    monkeypatch.setenv("ALTPROP_CACHE", str(folder))
    with without_cache():
        compiled(mlp()).step(ROWS, CLASSES)
    assert not folder.exists()


@pytest.mark.parametrize("value", [None, "", "on"])
def test_without_a_word_it_lies_in_the_users_own_folder(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALTPROP_CACHE") if value is None else monkeypatch.setenv("ALTPROP_CACHE", value)
    assert wanted_folder() == tmp_path / "home" / "altprop"
    compiled(mlp())
    assert (tmp_path / "home" / "altprop").stat().st_mode & 0o777 == 0o700


FACTOR = 2.0


def scaled(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss that reads what may change."""
    return nn.functional.cross_entropy(output, target) * FACTOR


def test_what_changes_between_compilation_and_program_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = compiled(mlp(), loss=scaled).graph.programs
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert programs["update"].name == "update"
    assert [path.name for path in entry_of(folder).iterdir()] == ["graph.json"]
    assert derives(compiled(mlp(), loss=scaled))


# What the key tells apart


CHANGES: dict[str, dict[str, Any]] = {
    "an option of the rule": {"rule": "reclra(beta=0.3)"},
    "another rule": {"rule": "dfa"},
    "the plan": {"plan": "chain"},
    "the loss": {"loss": "mse"},
    "the momentum": {"optimizer": altprop.optim.SGD(lr=0.1, momentum=0.5)},
    "the optimizer": {"optimizer": altprop.optim.Adam(lr=0.1)},
    "no optimizer": {"optimizer": None},
    "the type of numbers": {"inputs": ROWS.double()},
    "the batch": {"inputs": ROWS[:3]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_compilation_is_another_entry(what: str, expected: list[torch.Tensor]) -> None:
    model = mlp().double() if what == "the type of numbers" else mlp()
    assert derives(compiled(model, **{"inputs": ROWS, **CHANGES[what]}))


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("the rate", {"optimizer": altprop.optim.SGD(lr=0.7, feedback_lr=0.2, momentum=0.9)}),
        ("the seed", {"seed": 5}),
    ],
)
def test_numbers_of_a_step_are_no_other_entry(
    what: str, options: dict[str, Any], expected: list[torch.Tensor], folder: Path
) -> None:
    assert not derives(compiled(mlp(), **options)), what
    assert len(list(folder.iterdir())) == 1


def user_rule(sign: int) -> Rule:
    """A rule of a user's own, whose arithmetic differs by a number that it closes over."""

    class Mine(Rule):
        name = "mine"

        def error(self, local, d):  # type: ignore[no-untyped-def]
            return local.phi_vjp(d) * sign

    return Mine()


def test_a_rule_of_a_users_own_counts_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "mine", Rule)  # and is forgotten behind the test
    first = compiled(mlp(), user_rule(1))
    assert derives(first)
    expected = steps(first)
    again = compiled(mlp(), user_rule(1))
    assert_same(steps(again), expected)
    assert not derives(again)
    assert derives(compiled(mlp(), user_rule(-1)))


def test_what_cannot_be_told_is_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target) * float(os.environ.get("FACTOR", "1"))

    with caplog.at_level(logging.INFO, "altprop.cache"):
        net = compiled(mlp(), loss=loss)
        net.step(ROWS, CLASSES)
    assert "nothing is kept of this compilation: the loss: " in caplog.text
    assert "names os, which reads what is outside of it" in caplog.text
    assert not list(folder.iterdir())


@torch.library.custom_op("altprop_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    """An operator of a user's own."""
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


twice.register_autograd(lambda context, gradient: gradient * 2)


def test_operators_of_a_users_own_are_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.tanh(twice(self.one(x))))

    with caplog.at_level(logging.INFO, "altprop.cache"):
        compiled(Custom())
    assert "the model calls altprop_tests.twice.default, whose derivative is not seen" in caplog.text
    assert not list(folder.iterdir())


def test_autocast_is_part_of_the_key_and_of_what_comes_later() -> None:
    nets = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            nets.append(compiled(mlp(), by=altprop.compile))  # a kept capture is of no autocast
    assert not derives(nets[1])
    assert str(nets[1].graph) == str(nets[0].graph)  # derived here, outside of autocast
    assert derives(compiled(mlp()))


def test_what_holds_for_some_batches_alone_is_not_kept(folder: Path) -> None:
    """No file says for which batches: a net of another process would take it for all."""

    def by_length(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return y.square().sum() / len(y)

    first = compiled(mlp(), loss=by_length)
    first.step(ROWS, CLASSES)
    second = compiled(mlp(), loss=by_length)
    second.step(ROWS, CLASSES)
    assert not list(folder.rglob("step.txt"))
    more = torch.cat([ROWS, ROWS])
    expected = by_length(second.model(more), CLASSES)
    torch.testing.assert_close(second.step(more, torch.cat([CLASSES, CLASSES])), expected.detach())
