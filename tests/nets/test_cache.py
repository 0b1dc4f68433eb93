"""The cache across processes: what a second compilation takes from files is what the first one made.

A second compilation in one process reads the same files as one in another process would; what it ran is seen by its
stages.
"""

import copy
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import altprop
from altprop.command import main
from altprop.compiler.cache.cache_folder import Folder, wanted_folder, without_cache
from altprop.ir.graph import ErrorGraph
from altprop.rules import Rule
from altprop.rules.base import RULES

pytestmark = pytest.mark.third

DERIVING = ("linearize_regions", "derive_updates", "flatten")


class Net(nn.Module):
    """A convolution, a norm with buffers, dropout, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.mid = nn.Linear(12, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.out(torch.tanh(self.mid(x)))


IMAGES = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 1])
ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def compiled(model: nn.Module, rule: Any = "reclra", inputs: torch.Tensor = IMAGES, **options: Any) -> altprop.LocalNet:
    torch.manual_seed(3)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.normal_(std=0.3)
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.1, momentum=0.9))
    return altprop.compile(model, rule, example_inputs=(inputs,), **options)


def derives(net: altprop.LocalNet) -> bool:
    """Whether the passes ran that the cache stands for."""
    return any(stage.partition(":")[0] in DERIVING for stage in net.timings.stages)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALTPROP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def steps(net: altprop.LocalNet, inputs: torch.Tensor, target: torch.Tensor = CLASSES) -> list[torch.Tensor]:
    torch.manual_seed(5)
    losses = [net.step(inputs, target) for _ in range(3)]
    return [*losses, *(p.detach() for p in net.model.parameters()), *(p.detach() for p in net.feedback.values())]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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
    first = compiled(Net())
    nn.functional.cross_entropy(first(IMAGES), CLASSES).backward()
    first.backward(IMAGES, CLASSES)
    second = compiled(Net())
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
    first = compiled(mlp(), inputs=ROWS)
    steps(first, ROWS)
    second = compiled(mlp(), inputs=ROWS)
    steps(second, ROWS)
    one, other = first.measure(ROWS, CLASSES), second.measure(ROWS, CLASSES)
    assert str(one) == str(other)
    assert derives(second)
    assert str(second.graph) == str(first.graph)
    for stage, graph in second.history.items():
        assert isinstance(graph, ErrorGraph)
        assert str(graph) == str(first.history[stage]), stage
    assert str(second.schedule(devices=2)) == str(first.schedule(devices=2))


def test_programs_are_kept_as_they_are_made(folder: Path) -> None:
    net = compiled(mlp(), inputs=ROWS)
    (entry,) = folder.iterdir()
    assert {path.name for path in entry.iterdir()} == {"graph.json"}
    net.step(ROWS, CLASSES)
    assert {path.name for path in entry.iterdir()} == {"graph.json", "step.txt", "step.safetensors"}
    other = compiled(mlp(), inputs=ROWS)
    other.backward(ROWS, CLASSES)  # was not made before
    assert derives(other)
    assert (entry / "backward.txt").exists()


def test_tensors_that_a_loss_holds_are_kept() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0])
    found = []
    for _ in range(2):
        net = compiled(mlp(), inputs=ROWS, loss=nn.CrossEntropyLoss(weights))
        net.backward(ROWS, CLASSES)
        found.append(steps(net, ROWS))
    assert not derives(net)
    assert_same(found[0], found[1])
    other = compiled(mlp(), inputs=ROWS, loss=nn.CrossEntropyLoss(weights * 2))
    assert derives(other)


def test_off_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("off", "OFF"):
        monkeypatch.setenv("ALTPROP_CACHE", value)
        compiled(mlp(), inputs=ROWS).step(ROWS, CLASSES)
    monkeypatch.setenv("ALTPROP_CACHE", str(folder))
    with without_cache():
        compiled(mlp(), inputs=ROWS).step(ROWS, CLASSES)
    assert not folder.exists()


@pytest.mark.parametrize("value", [None, "", "on"])
def test_without_a_word_it_lies_in_the_users_own_folder(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALTPROP_CACHE") if value is None else monkeypatch.setenv("ALTPROP_CACHE", value)
    assert wanted_folder() == tmp_path / "home" / "altprop"
    compiled(mlp(), inputs=ROWS)
    assert (tmp_path / "home" / "altprop").stat().st_mode & 0o777 == 0o700


FACTOR = 2.0


def scaled(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss that reads what may change."""
    return nn.functional.cross_entropy(output, target) * FACTOR


def test_what_changes_between_compilation_and_program_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = compiled(mlp(), inputs=ROWS, loss=scaled).graph.programs
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert programs["update"].name == "update"
    assert [path.name for path in entry_of(folder).iterdir()] == ["graph.json"]
    assert derives(compiled(mlp(), inputs=ROWS, loss=scaled))


def test_tensors_of_another_program_are_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two processes may write one entry, each its own files."""
    weighted = nn.CrossEntropyLoss(torch.tensor([0.5, 1.0, 2.0]))
    expected = steps(compiled(mlp(), inputs=ROWS, loss=weighted), ROWS)
    kept, entry = Folder(folder), next(folder.glob("*/step.txt")).parent.name
    tensors = kept.read(entry, "step.safetensors")
    assert tensors is not None
    kept.write(entry, "step.safetensors", tensors[:-1] + b"\1")
    assert_same(steps(compiled(mlp(), inputs=ROWS, loss=weighted), ROWS), expected)
    assert any("its tensors are another's" in said for said in warnings_of(caplog))


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
def test_another_compilation_is_another_entry(what: str) -> None:
    compiled(mlp(), inputs=ROWS)
    model = mlp().double() if what == "the type of numbers" else mlp()
    assert derives(compiled(model, **{"inputs": ROWS, **CHANGES[what]}))


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("the rate", {"optimizer": altprop.optim.SGD(lr=0.7, feedback_lr=0.2, momentum=0.9)}),
        ("the seed", {"seed": 5}),
    ],
)
def test_numbers_of_a_step_are_no_other_entry(what: str, options: dict[str, Any], folder: Path) -> None:
    compiled(mlp(), inputs=ROWS)
    assert not derives(compiled(mlp(), inputs=ROWS, **options)), what
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
    first = compiled(mlp(), user_rule(1), ROWS)
    assert derives(first)
    expected = steps(first, ROWS)
    again = compiled(mlp(), user_rule(1), ROWS)
    assert_same(steps(again, ROWS), expected)
    assert not derives(again)
    assert derives(compiled(mlp(), user_rule(-1), ROWS))


def test_what_cannot_be_told_is_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target) * float(os.environ.get("FACTOR", "1"))

    with caplog.at_level(logging.INFO, "altprop.cache"):
        net = compiled(mlp(), inputs=ROWS, loss=loss)
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
        compiled(Custom(), inputs=ROWS)
    assert "the model calls altprop_tests.twice.default, whose derivative is not seen" in caplog.text
    assert not list(folder.iterdir())


# Files that are not as they were


def entry_of(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def altered(data: bytes) -> bytes:
    """One letter of the text is another."""
    place = len(data) - 5
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("name", ["step.txt", "graph.json", "step.safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (altered, "is damaged"),
        (lambda data: data[:-3], "is damaged"),
        (lambda data: b"", "is no file of the cache"),
        (lambda data: b"cos\nsystem\n(S'true'\ntR.", "is no file of the cache"),
        (lambda data: data.replace(b"altprop cache 1", b"altprop cache 2", 1), "is of version 2; this altprop reads"),
    ],
)
def test_a_file_that_is_not_whole_is_left_alone(
    name: str, change: Any, message: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = compiled(mlp(), inputs=ROWS)
    expected = steps(net, ROWS)
    path = entry_of(folder) / name
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    again = compiled(mlp(), inputs=ROWS)
    assert_same(steps(again, ROWS), expected)
    (said,) = warnings_of(caplog)
    assert said.startswith("cache: left alone: ")
    assert message in said
    assert path.read_bytes() == whole  # written anew


def test_a_whole_file_with_a_foreign_text_is_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A digest says that a file is whole, not that it is good."""
    expected = steps(compiled(mlp(), inputs=ROWS), ROWS)
    kept = Folder(folder)
    for text in (b"altprop program 1\nprogram step\nx = os.system()", b"\xff", b"altprop program 1\nprogram step"):
        kept.write(entry_of(folder).name, "step.txt", text)
        caplog.clear()
        assert_same(steps(compiled(mlp(), inputs=ROWS), ROWS), expected)
        assert any("left alone" in said for said in warnings_of(caplog))


@pytest.mark.parametrize("text", [b"[]", b"{}", b"{", b'{"feedback": [{}]}', b"\xff"])
def test_a_whole_record_with_a_foreign_text_is_left_alone(
    text: bytes, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = steps(compiled(mlp(), inputs=ROWS), ROWS)
    Folder(folder).write(entry_of(folder).name, "graph.json", text)
    again = compiled(mlp(), inputs=ROWS)
    assert derives(again)
    assert_same(steps(again, ROWS), expected)
    assert any("is no record" in said for said in warnings_of(caplog))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system knows no owners of files")
def test_a_folder_that_others_may_write_is_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    compiled(mlp(), inputs=ROWS)
    folder.chmod(0o777)
    assert derives(compiled(mlp(), inputs=ROWS))
    assert any("may be written by others: chmod go-w" in said for said in warnings_of(caplog))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system knows no owners of files")
def test_files_that_others_may_write_and_links_are_left_alone(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiled(mlp(), inputs=ROWS)
    path = entry_of(folder) / "graph.json"
    path.chmod(0o666)
    assert derives(compiled(mlp(), inputs=ROWS))
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    assert derives(compiled(mlp(), inputs=ROWS))
    said = warnings_of(caplog)
    assert any("may be written by others" in one for one in said)
    assert any("is a link" in one for one in said)


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("ALTPROP_CACHE", str(file / "inside"))
    assert derives(compiled(mlp(), inputs=ROWS))


def test_autocast_is_part_of_the_key_and_of_what_comes_later() -> None:
    nets = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            nets.append(compiled(mlp(), inputs=ROWS))
    assert not derives(nets[1])
    assert str(nets[1].graph) == str(nets[0].graph)  # derived here, outside of autocast
    assert derives(compiled(mlp(), inputs=ROWS))


# The folder


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    folder = Folder(tmp_path, most=250)
    names = [letter * 64 for letter in "abc"]
    for age, name in enumerate(names):
        folder.write(name, "one", b"")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert folder.read(names[0], "one") == b""  # was used just now
    folder.write("d" * 64, "one", b"")
    left = sorted(path.name[0] for path in tmp_path.iterdir())
    assert "a" in left
    assert "b" not in left
    assert sum(size for _, size, _ in folder.entries()) <= 250


def test_a_file_that_would_fill_the_folder_is_not_kept(tmp_path: Path) -> None:
    folder = Folder(tmp_path, most=400)
    folder.write("a" * 64, "one", bytes(101))
    assert folder.read("a" * 64, "one") is None


def test_the_entries_are_counted_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, counted = Folder(tmp_path, most=16_000), []
    monkeypatch.setattr(folder, "shrink", lambda most: counted.append(most))
    for number in range(20):
        folder.write("a" * 64, f"file{number}", bytes(100))
    assert len(counted) == 4  # the first, and behind each thousand bytes


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    folder = Folder(tmp_path)
    folder.write("a" * 64, "one", b"1")
    assert folder.shrink(0) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_shows_and_clears(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(mlp(), inputs=ROWS)
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert f"{folder}: 1 compilations, 0.0 of 512 MiB" in shown
    assert f"{entry_of(folder).name[:12]} " in shown
    assert main(["cache", "--clear"]) == 0
    assert "removed 1 compilations" in capsys.readouterr().err
    assert not list(folder.iterdir())
    monkeypatch.setenv("ALTPROP_CACHE", "off")
    assert main(["cache"]) == 0
    assert "There is no cache: ALTPROP_CACHE is off" in capsys.readouterr().out
