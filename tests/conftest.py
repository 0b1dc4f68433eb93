"""What all tests share: golden texts, the real data sets, torchvision's models, one thread a worker.

A *golden text* is the expected print of a graph or program, kept in `tests/golden/`. `pytest
--update-golden` writes the present prints there; read the diff before committing it.
"""

import contextlib
import difflib
import functools
import gc
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import processor_time
import pytest
import torch
from choose import choose_thirds
from hypothesis import given, settings
from hypothesis import strategies as st
from versions import TORCH

import altprop

os.environ["ALTPROP_CACHE"] = "off"  # a test sees what is compiled, not what another one left
os.environ.setdefault("ALTPROP_VERIFY", "64")  # small programs are checked behind each pass that tunes them

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
NEWER = TORCH > (2, 13)
DATA_HOMES = {
    "MNIST": "the four idx .gz files in MNIST/raw (torchvision.datasets.MNIST downloads them)",
    "FashionMNIST": "the four idx .gz files in FashionMNIST/raw (github.com/zalandoresearch/fashion-mnist)",
    "cifar-10-batches-py": "the Python version of CIFAR-10 (www.cs.toronto.edu/~kriz/cifar.html)",
    "planetoid": "the ind.* files of Cora and Citeseer (github.com/kimiyoung/planetoid)",
    "tinyshakespeare": "input.txt (github.com/karpathy/char-rnn, data/tinyshakespeare)",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/ from this run")
    processor_time.add_option(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before pytest itself reads the marks."""
    choose_thirds(items)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(processor_time)
    settings.register_profile("same", derandomize=True, deadline=None)  # every run tests the same examples
    settings.load_profile("same")
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    register_torchvision_operators()
    # A fake tensor has a CUDA build without a GPU stand for one with a GPU. Where autograd begins after that it starts
    # threads, and no fork of this process can use autograd any more: so it begins before.
    torch.ones(1, requires_grad=True).sum().backward()
    # Collecting often costs a fifth of the time: graphs are many small objects, most of which stay until a test ends.
    # Nothing is frozen: each compile asks whether something is, and Python counts what is frozen one by one.
    gc.set_threshold(50_000, 20, 50)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if ROOT / "tests" / "unit" not in item.path.parents:
        warm_up()
    if item.get_closest_marker("hypothesis") is not None:
        draw_once()


def draw_once() -> None:
    """Lets Hypothesis read the modules that are new, for constants to draw; no test is charged for that."""

    @settings(max_examples=5, database=None)
    @given(st.integers())
    def draw(_: int) -> None:
        pass

    with processor_time.shared():
        draw()


@functools.cache
def warm_up() -> None:
    """Compiles once, so that no test is charged for what torch imports and traces at the first time."""
    with processor_time.shared():
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
        with torch.random.fork_rng():
            altprop.compile(model, "reclra", example_inputs=(torch.zeros(2, 3),), optimizer=altprop.optim.SGD(lr=0.1))


def register_torchvision_operators() -> None:
    """Declares the operators that `import torchvision` describes, where its compiled ones do not load.

    Its compiled file needs the very build of torch that it was made with; its model definitions do not.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    with contextlib.suppress(OSError):
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou) -> Tensor")


def difference(expected: str, actual: str, name: str) -> str:
    """The unified diff from the golden text to the present one; empty if they are equal."""
    lines = difflib.unified_diff(
        expected.splitlines(), actual.splitlines(), f"golden/{name}.txt", "this run", lineterm=""
    )
    return "\n".join(lines)


def without_clones(text: str) -> str:
    """A cut's text without the copies in it, and without the width of its columns.

    Golden texts are those of the torch in constraints.txt. From 2.14 on a dropout of 0 makes no copy.
    """
    return re.sub(r" +", " ", re.sub(r", clone\b|\bclone, |then clone\b(?!,)", "", text)).replace(" \n", "\n")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with `tests/golden/<name>.txt`.

    With `--update-golden` it writes the file instead. Trailing newlines do not count.
    """
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        actual = text.rstrip("\n") + "\n"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(actual, "utf-8")
            return
        if not path.exists():
            pytest.fail(f"no golden text {path.name}: run pytest --update-golden, read it, and commit it")
        expected = path.read_text("utf-8")
        if NEWER and without_clones(actual) == without_clones(expected):
            return
        if actual != expected:
            shown = difference(expected, actual, name)
            pytest.fail(f"{path.name} differs; --update-golden accepts it:\n{shown}", pytrace=False)

    return check


def find_data_dir() -> Path | None:
    """The folder of real data sets: the variable ALTPROP_DATA, else one beside the repository, else none."""
    named = os.environ.get("ALTPROP_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, with one subfolder for each key of `DATA_HOMES`."""
    folder = find_data_dir()
    if folder is None:
        homes = "; ".join(f"{name}: {home}" for name, home in DATA_HOMES.items())
        pytest.skip(f"no data sets here: set ALTPROP_DATA to a folder with any of these. {homes}")
    return folder


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """The module torchvision, for its model definitions."""
    pytest.importorskip("torchvision", reason="torchvision is not installed: make .venv/.ready installs it")
    return importlib.import_module("torchvision")
