"""Runs and machines that went wrong once, each by its number: threads, replicas, folders."""

import copy
import os
import pickle
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import flip, small_files, small_net
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import altprop
from altprop import ScheduleError
from altprop.runtime.folder_lock import FolderLock

pytestmark = pytest.mark.third


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    """What `work` returns, or raises, in so many threads that begin together."""
    found: list[Any] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_defect_25_four_threads_compile_at_once() -> None:
    found = in_threads(lambda number: small_net(), 4)
    assert [type(one) for one in found] == [altprop.LocalNet] * 4


def test_defect_25_threads_share_a_net_that_compiles_at_its_first_call() -> None:
    """More than once: what a thread sees of another one's capture depends on who is faster."""
    x = torch.randn(8, 6)
    for _ in range(4):
        net = altprop.compile(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), rule="dfa")
        found = in_threads(lambda number, net=net: net(x), 3)
        assert all(torch.equal(one, found[0]) for one in found)
        assert len(net.compilations.variants) == 1


class Doubled(torch.autograd.Function):
    """A user's own function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Interrupted(nn.Module):
    """Lets another thread do something while it is traced; `part` makes (..., 6) of (..., 6)."""

    def __init__(self, part: nn.Module, meanwhile: Callable[[], Any]) -> None:
        super().__init__()
        self.part, self.last = part, nn.Linear(6, 3)
        self.meanwhile = meanwhile

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, FakeTensor):
            in_threads(lambda number: self.meanwhile(), 1)
        return self.last(self.part(x))


class Masked(nn.Module):
    """An encoder with a causal mask, or with one that hides nothing."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 1)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(size) if self.causal else torch.zeros(size, size)
        return self.encoder(x, mask=mask)


class Recurrent(nn.Module):
    """An RNN without its state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def test_defect_25_other_threads_train_while_one_compiles() -> None:
    x, net, done = torch.randn(8, 6), small_net(), []
    net(x).sum().backward()  # its programs are there: making them would wait for the compilation

    def meanwhile() -> None:
        Doubled.apply(torch.ones(2, requires_grad=True)).sum().backward()
        net(x).sum().backward()
        done.append(True)

    assert altprop.examine(Interrupted(nn.Identity(), meanwhile), (x,)).ok
    assert done


def test_defect_25_other_threads_make_recurrent_layers_while_one_compiles() -> None:
    x, made = torch.randn(2, 2, 6), []
    model = Interrupted(Recurrent(), lambda: made.append(Recurrent()))
    assert altprop.examine(model, (x,)).ok
    made[0](x).sum().backward()


def test_defect_25_other_threads_mask_while_one_compiles() -> None:
    x, other = torch.randn(2, 2, 6), Masked(causal=False)
    expected = other(x)[:, 0].detach()
    seen = []
    model = Interrupted(Masked(causal=True), lambda: seen.append(other(x)))
    assert altprop.examine(model, (x,)).ok
    torch.testing.assert_close(seen[0][:, 0], expected)


class Stranger:
    """Makes a file when it is unpickled by a reader that runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@cache
def trained_net() -> altprop.LocalNet:
    return small_net(optimizer=altprop.optim.SGD(lr=0.1, momentum=0.9))


def serial_runtime() -> Any:
    """A runtime of a net of its own."""
    return copy.deepcopy(trained_net()).schedule(devices=2, batch=8).runtime("serial")


def saved(folder: Path, steps: int = 2) -> list[Path]:
    """Checkpoints after each of some steps."""
    runtime = serial_runtime()
    found = []
    for step in range(steps):
        runtime.step(torch.randn(8, 6), torch.arange(8) % 3)
        found.append(runtime.save(folder))
        assert found[-1].name == f"step-{step + 1:08d}"
    return found


def test_defect_22_resume_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / ".metadata").write_bytes(pickle.dumps(Stranger(tmp_path / "ran")))
    with pytest.raises(ScheduleError, match=r"step-00000001 was written by torch\.distributed\.checkpoint, which runs"):
        serial_runtime().resume(tmp_path)
    assert not (tmp_path / "ran").exists()
    saved(tmp_path / "ours", 1)
    kinds = {path.suffix for path in (tmp_path / "ours" / "step-00000001").iterdir()}
    assert kinds == {".json", ".safetensors"}


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "tensors": lambda folder: flip(folder / "rank-0.safetensors", 0.9),
    "header": lambda folder: flip(folder / "rank-0.safetensors", 0.001),
    "manifest": lambda folder: flip(folder / "manifest.json"),
    "signature": lambda folder: flip(folder / "manifest.json", 1),
    "torn": lambda folder: os.truncate(folder / "rank-0.safetensors", 100),
    "torn manifest": lambda folder: os.truncate(folder / "manifest.json", 100),
    "no file": lambda folder: (folder / "rank-0.safetensors").unlink(),
    "another name": lambda folder: folder.rename(folder.with_name("step-00000009")),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_defect_26_the_last_whole_checkpoint_is_taken_and_said(tmp_path: Path, how: str) -> None:
    _, last = saved(tmp_path)
    DAMAGE[how](last)
    with pytest.warns(
        UserWarning, match=r"step-0000000[29] is damaged \(.*\): the run goes on from .*step-00000001\.$"
    ):
        assert serial_runtime().resume(tmp_path) == 1


def test_defect_26_no_checkpoint_is_whole(tmp_path: Path) -> None:
    for path in saved(tmp_path):
        flip(path / "rank-0.safetensors")
    with pytest.raises(ScheduleError, match=r"^no checkpoint in \S+ is whole: \S+2 is damaged .*; \S+1 is damaged"):
        serial_runtime().resume(tmp_path)


def test_defect_26_a_checkpoint_of_another_optimizer_is_told_by_its_name(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    other = small_net(optimizer=altprop.optim.SGD(lr=0.1)).schedule(devices=1, batch=8).runtime("serial")
    with pytest.raises(ScheduleError, match=r"of another net or optimizer: this net has no state:momentum:"):
        other.resume(tmp_path)


@pytest.mark.parametrize("size", [0, 1200])
def test_defect_26_a_full_disk_keeps_the_last_whole_checkpoint(tmp_path: Path, size: int) -> None:
    runtime = serial_runtime()
    runtime.step(torch.randn(8, 6), torch.arange(8) % 3)
    runtime.save(tmp_path)
    runtime.step(torch.randn(8, 6), torch.arange(8) % 3)
    with (
        small_files(size),
        pytest.raises(ScheduleError, match=r"^could not save a checkpoint: \S+ cannot be written: .*as they were\.$"),
    ):
        runtime.save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step-00000001"]
    assert serial_runtime().resume(tmp_path) == 1


def test_defect_23_a_second_run_of_a_schedule_is_refused_the_folder(tmp_path: Path) -> None:
    other = FolderLock(tmp_path)  # as another process has it
    other.acquire()
    with pytest.raises(ScheduleError, match=rf"in use by another run \(process {os.getpid()} on .*; wait for its end"):
        serial_runtime().save(tmp_path)
    other.release()
    saved(tmp_path, 1)


def test_defect_26_noise_goes_on_after_a_resume(tmp_path: Path) -> None:
    runtime = serial_runtime()
    runtime.net.noise.count = 5
    runtime.save(tmp_path)
    resumed = serial_runtime()
    resumed.resume(tmp_path)
    assert resumed.net.noise.count == 5
