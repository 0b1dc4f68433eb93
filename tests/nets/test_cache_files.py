"""Files of the cache: what is damaged, foreign or open to others is left alone; a folder stays within bounds."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_nets import assert_same, compiled, derives, entry_of, fill, mlp, steps, warnings_of
from torch import nn

from altprop.command import main
from altprop.compiler.cache.cache_folder import Folder

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


def test_tensors_of_another_program_are_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two processes may write one entry, each its own files."""
    weighted = nn.CrossEntropyLoss(torch.tensor([0.5, 1.0, 2.0]))
    expected = steps(compiled(mlp(), loss=weighted))
    kept, entry = Folder(folder), next(folder.glob("*/step.txt")).parent.name
    tensors = kept.read(entry, "step.safetensors")
    assert tensors is not None
    kept.write(entry, "step.safetensors", tensors[:-1] + b"\1")
    assert_same(steps(compiled(mlp(), loss=weighted)), expected)
    assert any("its tensors are another's" in said for said in warnings_of(caplog))


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
    name: str, change: Any, message: str, expected: list[torch.Tensor], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = entry_of(folder) / name
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    again = compiled(mlp())
    assert_same(steps(again), expected)
    (said,) = warnings_of(caplog)
    assert said.startswith("cache: left alone: ")
    assert message in said
    assert path.read_bytes() == whole  # written anew


def test_a_whole_file_with_a_foreign_text_is_left_alone(
    expected: list[torch.Tensor], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A digest says that a file is whole, not that it is good."""
    kept = Folder(folder)
    for text in (b"altprop program 1\nprogram step\nx = os.system()", b"\xff", b"altprop program 1\nprogram step"):
        kept.write(entry_of(folder).name, "step.txt", text)
        caplog.clear()
        assert_same(steps(compiled(mlp())), expected)
        assert any("left alone" in said for said in warnings_of(caplog))


@pytest.mark.parametrize("text", [b"[]", b"{}", b"{", b'{"feedback": [{}]}', b"\xff"])
def test_a_whole_record_with_a_foreign_text_is_left_alone(
    text: bytes, expected: list[torch.Tensor], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Folder(folder).write(entry_of(folder).name, "graph.json", text)
    again = compiled(mlp())
    assert derives(again)
    assert_same(steps(again), expected)
    assert any("is no record" in said for said in warnings_of(caplog))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system knows no owners of files")
def test_a_folder_that_others_may_write_is_left_alone(
    expected: list[torch.Tensor], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(0o777)
    assert derives(compiled(mlp()))
    assert any("may be written by others: chmod go-w" in said for said in warnings_of(caplog))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system knows no owners of files")
def test_files_that_others_may_write_and_links_are_left_alone(
    expected: list[torch.Tensor], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = entry_of(folder) / "graph.json"
    path.chmod(0o666)
    assert derives(compiled(mlp()))
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    assert derives(compiled(mlp()))
    said = warnings_of(caplog)
    assert any("may be written by others" in one for one in said)
    assert any("is a link" in one for one in said)


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("ALTPROP_CACHE", str(file / "inside"))
    assert derives(compiled(mlp()))


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
    expected: list[torch.Tensor], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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
