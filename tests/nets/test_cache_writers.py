"""Two processes that write the same entry of the cache at once: who reads it finds something whole, or nothing."""

import functools
import logging
import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kept import compile as compile_kept
from processes import HANG
from torch import nn

import altprop
from altprop.compiler.cache.cache_folder import Folder

FORKS = multiprocessing.get_context("fork")
ENTRY = "e" * 64
ROWS = torch.linspace(-1, 1, 24).reshape(4, 6)
CLASSES = torch.tensor([0, 1, 2, 1])


def start(*actions: Callable[[], Any]) -> list[Any]:
    """Starts forks of this process, one for each action."""
    processes = [FORKS.Process(target=action, daemon=True) for action in actions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of a fork beside threads
        for process in processes:
            process.start()
    return processes


def end(processes: list[Any]) -> list[int | None]:
    for process in processes:
        process.join(HANG)
    return [process.exitcode for process in processes]


def write_often(folder: Folder, letter: bytes) -> None:
    for length in range(1, 201):
        folder.write(ENTRY, "file", letter * length * 500)


def test_a_file_that_two_write_is_whole_at_every_moment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path)
    processes = start(*(functools.partial(write_often, folder, letter) for letter in (b"a", b"b")))
    found = set()
    while any(process.is_alive() for process in processes):
        found.add(folder.read(ENTRY, "file"))
    assert end(processes) == [0, 0]
    found.add(folder.read(ENTRY, "file"))
    assert len(found) > 1
    assert all(len(set(data)) == 1 for data in found - {None})
    assert not [line for line in caplog.messages if "left alone" in line]
    assert [file.name for file in (tmp_path / ENTRY).iterdir()] == ["file"]


def compiled() -> altprop.LocalNet:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    return compile_kept(model, "reclra", example_inputs=(ROWS,), optimizer=altprop.optim.SGD(lr=0.1))


def losses(net: altprop.LocalNet) -> list[float]:
    return [net.step(ROWS, CLASSES).item() for _ in range(3)]


def test_two_that_compile_the_same_at_once_leave_an_entry_that_a_third_trains_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = losses(compiled())
    monkeypatch.setenv("ALTPROP_CACHE", str(tmp_path))
    barrier, written = FORKS.Barrier(2), FORKS.Value("i", 0)
    write = Folder.write

    def write_together(*given: Any) -> None:
        barrier.wait(HANG)
        with written.get_lock():
            written.value += 1
        write(*given)

    monkeypatch.setattr(Folder, "write", write_together)
    work = lambda: losses(compiled())  # noqa: E731
    assert end(start(work, work)) == [0, 0]
    monkeypatch.setattr(Folder, "write", write)
    assert written.value >= 2 * 3  # a record, a program and its tensors
    with caplog.at_level(logging.INFO, "altprop.cache"):
        third = compiled()
        assert losses(third) == expected
    assert any("taken from" in line for line in caplog.messages)
    assert not any("left alone" in line for line in caplog.messages)
    assert "derive_updates" not in third.timings.stages
