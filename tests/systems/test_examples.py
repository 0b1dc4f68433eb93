"""Every example runs, on little data, and leaves what it promises."""

import csv
import dataclasses
import functools
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import EXAMPLES, run, run_forked
from rich.console import Console

from altprop.data import DataSet, Split


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    return out, run("demo.py", "--out", out, "--epochs", "2", "--subset", "256", "--threads", "1")


@pytest.mark.full
def test_demo_compares_three_rules(demo: tuple[Path, str]) -> None:
    out, shown = demo
    for word in ("convnet", "resnet20", "rec-LRA", "DFA", "backprop", "test accuracy"):
        assert word in shown
    with (out / "summary.csv").open(newline="") as file:
        assert [row["rule"] for row in csv.DictReader(file)] == ["rec-LRA", "DFA", "backprop"] * 2
    assert len(json.loads((out / "summary.json").read_text())) == 6


@pytest.mark.full
def test_demo_leaves_a_folder_to_look_at(demo: tuple[Path, str]) -> None:
    out, _ = demo
    for model in ("convnet", "resnet20"):
        assert (out / f"curves-{model}.png").stat().st_size > 10_000
        for rule in ("reclra", "dfa", "bp"):
            folder = out / f"{model}-{rule}"
            assert "<svg" in (folder / "pathway.svg").read_text()
            for name in ("plan.json", "explain.csv", "metrics.csv", "checkpoint.pt", "curves.png"):
                assert (folder / name).stat().st_size > 0, name
    page = (out / "index.html").read_text()
    links = [part.split('"')[0] for mark in ('href="', 'src="') for part in page.split(mark)[1:]]
    assert len(links) > 30
    assert all((out / link).exists() for link in links)


@pytest.mark.full
def test_fashion_mnist(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "numbers.json"
    size = ["--epochs", "2", "--subset", "3000", "--seeds", "0,1", "--threads", "1"]
    shown = run("fashion_mnist.py", "--data-dir", data_dir, "--out", out, *size)
    assert "times backprop's" in shown
    numbers = json.loads(out.read_text())
    assert [(one["rule"], one["seed"]) for one in numbers["runs"]] == [
        (rule, seed) for seed in (0, 1) for rule in ("rec-LRA", "backprop")
    ]
    assert all(one["test_error_percent"] < 60 for one in numbers["runs"])
    means = numbers["test_error_percent"]
    assert numbers["ratio"] == pytest.approx(means["rec-LRA"] / means["backprop"])


# The same, smaller, in forks of this process, which has imported torch and compiled.


def succeeds(folder: Path, example: str, *words: str | Path) -> str:
    done = run_forked(folder, example, *words)
    assert done.status == 0, done.err
    return done.out


def test_fashion_mnist_of_one_epoch(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "numbers.json"
    size = ["--epochs", "1", "--subset", "500", "--seeds", "0", "--threads", "1"]
    assert "times backprop's" in succeeds(tmp_path, "fashion_mnist.py", "--data-dir", data_dir, "--out", out, *size)
    assert [one["rule"] for one in json.loads(out.read_text())["runs"]] == ["rec-LRA", "backprop"]


def test_citation_graph_of_two_epochs(tmp_path: Path, data_dir: Path) -> None:
    shown = succeeds(tmp_path, "citation_graph.py", "--data-dir", data_dir, "--epochs", "2", "--seeds", "1")
    assert "dfa  test accuracy" in shown
    assert "points behind bp" in shown


def test_characters_of_four_steps(tmp_path: Path, data_dir: Path) -> None:
    size = ["--steps", "4", "--length", "4", "--rules", "dfa"]
    shown = succeeds(tmp_path, "characters.py", "--data-dir", data_dir, "--model", "lstm", *size)
    assert "lstm by dfa: validation loss" in shown


def test_beyond_gradients_of_one_epoch(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="trees are fitted by scikit-learn, which is not installed")
    size = ["--epochs", "1", "--seeds", "1", "--subset", "200", "--only", "trees as output"]
    shown = succeeds(tmp_path, "beyond_gradients.py", *size, "--out", tmp_path / "numbers.json")
    assert "trees as output, DFA below" in shown
    assert len(json.loads((tmp_path / "numbers.json").read_text())["accuracy"]) == 2


def test_fashion_mnist_without_files(tmp_path: Path) -> None:
    done = run_forked(tmp_path, "fashion_mnist.py", "--data-dir", tmp_path)
    assert done.status == 1
    assert "fashion-mnist: train-images-idx3-ubyte.gz is missing; fetch" in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_tested(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    tests = [file.read_text("utf-8") for file in Path(__file__).parents[1].rglob("test_*.py")]
    assert any(f'"{path.name}"' in text or f"/{path.name}" in text for text in tests)


@pytest.mark.full
def test_citation_graph(data_dir: Path) -> None:
    shown = run("citation_graph.py", "--data-dir", data_dir, "--epochs", "12", "--seeds", "1")
    assert "dfa  test accuracy" in shown
    assert "points behind bp" in shown


@pytest.mark.full
def test_characters(data_dir: Path) -> None:
    size = ["--steps", "40", "--length", "8", "--rules", "dfa"]
    shown = run("characters.py", "--data-dir", data_dir, "--model", "lstm", *size)
    assert "entropy of single characters 3.3" in shown
    assert "lstm by dfa: validation loss" in shown
    assert "lstm by output layer alone" in shown


@pytest.fixture(scope="module")
def cifar10() -> Iterator[Any]:
    """The example's module, where its processes find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("cifar10")


def noise(samples: int) -> Split:
    """Images of noise."""
    generator = torch.Generator().manual_seed(samples)
    images = torch.randint(256, (samples, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(samples) % 10)


@pytest.mark.full
def test_cifar10_keeps_what_is_done(cifar10: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = cifar10.Task(DataSet("noise", noise(40), noise(10), noise(20)), 1, 16, 0)
    out, labels = tmp_path / "runs.json", [cifar10.CONTROL, "dfa", "ddtp(top='gradient')"]
    console = Console(record=True, width=200, file=io.StringIO())
    runs = cifar10.run_all(task, labels, out, {}, console)
    own = f"{cifar10.CONTROL}, adamw, lr=0.003, lr_schedule=cosine"
    assert list(runs) == [*labels[:2], own, labels[2]] == list(json.loads(out.read_text()))
    assert runs["dfa"]["settings"]["rule"] == "dfa(kind='channel')"
    assert runs["dfa"]["control"] == own
    assert runs[own]["settings"]["lr"] == runs["dfa"]["settings"]["lr"] != runs[cifar10.CONTROL]["settings"]["lr"]
    assert runs[own]["loss"][0] == runs["dfa"]["loss"][0] == runs[cifar10.CONTROL]["loss"][0]
    assert len(runs["dfa"]["loss"]) == 3
    monkeypatch.setattr(cifar10, "train", lambda *given: pytest.fail("trained again"))
    again = cifar10.run_all(task, labels, out, {}, console)
    assert again == runs
    cifar10.show(again, console)
    cifar10.plot(again, tmp_path / "runs.svg")
    shown = console.export_text()
    assert "not better than their own control:" in shown
    assert "not better than the best control" in shown
    assert "ddtp(top='gradient') does not compile: ddtp: every region has an inverse" in shown
    assert "<svg" in (tmp_path / "runs.svg").read_text()


@pytest.mark.full
def test_cifar10_trains_side_by_side(cifar10: Any, tmp_path: Path) -> None:
    task = cifar10.Task(DataSet("noise", noise(40), noise(10), noise(20)), 1, 16, 0)
    labels = [cifar10.CONTROL, "ddtp(top='gradient')"]
    console = Console(width=200, file=io.StringIO())
    alone = cifar10.run_all(task, labels, tmp_path / "alone.json", {}, console)
    make = functools.partial(dataclasses.replace, task)
    found = cifar10.run_all(task, labels, tmp_path / "both.json", {}, console, jobs=2, make=make)
    assert found == json.loads((tmp_path / "both.json").read_text())
    assert found.keys() == alone.keys()
    for label, kept in alone.items():
        assert found[label].keys() == kept.keys()
        # Sums of several threads have another order.
        assert found[label].get("loss", [0.0]) == pytest.approx(kept.get("loss", [0.0]), abs=1e-3)
        assert found[label].get("refused") == kept.get("refused")


def test_cifar10_splits_rules_outside_brackets(cifar10: Any) -> None:
    assert cifar10.split_rules("dfa(scale=0.5, kind='channel'),bp") == ["dfa(scale=0.5, kind='channel')", "bp"]


def test_cifar10_without_files(tmp_path: Path) -> None:
    done = run_forked(tmp_path, "cifar10.py", "--data-dir", tmp_path)
    assert done.status == 1
    assert "cifar10: data_batch_1 is missing; fetch" in done.out


def test_cifar10_without_the_device(tmp_path: Path) -> None:
    done = run_forked(tmp_path, "cifar10.py", "--data-dir", tmp_path, "--device", "cuda:99")
    assert done.status == 1
    assert "device 'cuda:99' cannot be used here" in done.out
