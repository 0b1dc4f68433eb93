"""The loaders: real files where they are, small made ones everywhere; the sampler; the models by name."""

import gzip
import lzma
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from altprop import models
from altprop.data import BatchSampler, DataError, DataSet, Split, available, default_folder, load
from altprop.data.idx import read_idx
from altprop.data.load import CLASSES, SHAPES
from altprop.data.sampler import shift_and_mirror


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an idx file of unsigned bytes."""
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_mnist(home: Path, suffix: str = ".gz", train: int = 2100, test: int = 20) -> None:
    """Write the four files of a set of random 28x28 images."""
    draw = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        write_idx(home / f"{name}-images-idx3-ubyte{suffix}", draw.integers(0, 256, (count, 28, 28)))
        write_idx(home / f"{name}-labels-idx1-ubyte{suffix}", draw.integers(0, 10, count))


def make_cifar(home: Path, packed: bool) -> np.ndarray:
    """Write six small batches as Python 2 did, and return the first one's pixels."""
    home.mkdir(parents=True)
    draw = np.random.default_rng(0)
    first = None
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = draw.integers(0, 256, (4, 3072)).astype(np.uint8)
        first = pixels if first is None else first
        content = pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3]}, protocol=2)
        if packed:
            (home / f"{name}.xz").write_bytes(lzma.compress(content))
        else:
            (home / name).write_bytes(content)
    return first


def test_digits_are_split_the_same_every_time() -> None:
    data = load("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1257, 180, 360)
    assert data.shape == (1, 8, 8)
    inputs = data.inputs(data.train.images)
    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert torch.equal(load("digits").test.labels, data.test.labels)
    assert set(data.test.labels.tolist()) == set(range(10))


def test_splits_do_not_overlap() -> None:
    data = load("digits")
    rows = torch.cat([split.images.flatten(1) for split in (data.train, data.validation, data.test)])
    assert len(rows) == 1797
    assert len(rows.unique(dim=0)) == 1797


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("below", ["MNIST/raw", "MNIST"])
def test_idx_files_are_found_packed_or_not(tmp_path: Path, suffix: str, below: str) -> None:
    make_mnist(tmp_path / below, suffix)
    data = load("mnist", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 2000, 20)
    assert data.shape == (1, 28, 28)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_idx_files(data_dir: Path, name: str) -> None:
    data = load(name, data_dir)
    assert (len(data.train), len(data.validation), len(data.test)) == (58000, 2000, 10000)
    # The first labels of the test files, as published.
    assert data.test.labels[:5].tolist() == {"mnist": [7, 2, 1, 0, 4], "fashion-mnist": [9, 2, 1, 1, 6]}[name]
    assert torch.bincount(data.train.labels).min() > 5000


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_pickles_as_they_are_or_packed(tmp_path: Path, packed: bool) -> None:
    pixels = make_cifar(tmp_path / "cifar-10-batches-py", packed)
    data = load("cifar10", tmp_path, validation=5)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 4)
    images = torch.cat([data.train.images, data.validation.images]).flatten(1).tolist()
    assert pixels[0].tolist() in images
    assert data.inputs(data.train.images).abs().max() < 3


def test_the_hundred_classes_of_cifar_are_the_fine_ones(tmp_path: Path) -> None:
    home, draw = tmp_path / "cifar-100-python", np.random.default_rng(0)
    home.mkdir()
    for name in ("train", "test"):
        pixels = draw.integers(0, 256, (4, 3072)).astype(np.uint8)
        content = {"data": pixels, "coarse_labels": [0, 1, 2, 3], "fine_labels": [7, 8, 99, 0]}
        (home / name).write_bytes(pickle.dumps(content, protocol=2))
    data = load("cifar100", tmp_path, validation=1)
    assert (len(data.train), len(data.validation), len(data.test)) == (3, 1, 4)
    assert (data.classes, data.shape) == (100, (3, 32, 32))
    assert data.test.labels.tolist() == [7, 8, 99, 0]


def test_what_is_known_before_a_file_is_read_is_so() -> None:
    assert list(SHAPES) == list(CLASSES) == available()
    assert SHAPES["digits"] == load("digits").shape
    assert CLASSES["digits"] == load("digits").classes


@pytest.mark.full
def test_real_cifar(data_dir: Path) -> None:
    data = load("cifar10", data_dir, subset=1000)
    assert data.test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    inputs = data.inputs(data.train.images)
    assert inputs.mean().abs() < 0.05
    assert (inputs.std() - 1).abs() < 0.05


def test_cifar_pickle_cannot_run_code(tmp_path: Path) -> None:
    make_cifar(tmp_path / "cifar-10-batches-py", packed=False)
    evil = b"cos\nsystem\n(S'true'\ntR."
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(evil)
    with pytest.raises(DataError, match=r"data_batch_3 is not a CIFAR-10 batch \(it asks for os.system\)"):
        load("cifar10", tmp_path, validation=5)


@pytest.mark.parametrize("name", [name for name in available() if name != "digits"])
def test_missing_files_are_named_with_their_source(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"is missing; fetch .*https?://\S+ .* --data-dir or ALTPROP_DATA$"):
        load(name, tmp_path)


def test_one_missing_file_is_named(tmp_path: Path) -> None:
    make_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not an idx file"),
        (b"\x00\x00\x09\x01\x00\x00\x00\x02ab", "is not an idx file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03ab", r"is damaged: 2 numbers where \(3,\) are announced"),
    ],
)
def test_damaged_idx_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_idx(path)


def test_torn_gzip(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    write_idx(path, np.arange(200))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged"):
        read_idx(path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    home = tmp_path / "MNIST" / "raw"
    make_mnist(home)
    write_idx(home / "train-labels-idx1-ubyte.gz", np.zeros(3))
    with pytest.raises(DataError, match="do not belong together"):
        load("mnist", tmp_path)


def test_unknown_set_and_impossible_sizes() -> None:
    with pytest.raises(DataError, match="choose one of digits, mnist, fashion-mnist, cifar10, cifar100"):
        load("imagenet")
    with pytest.raises(DataError, match="cannot hold out 2000 and 360 of 1797"):
        load("digits", validation=2000)
    with pytest.raises(DataError, match="subset of 0"):
        load("digits", subset=0)


def test_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALTPROP_DATA", raising=False)
    assert default_folder() == Path("data")
    monkeypatch.setenv("ALTPROP_DATA", str(tmp_path))
    make_mnist(tmp_path / "MNIST")
    assert len(load("mnist").test) == 20


def test_sampler_goes_once_through_everything_and_can_be_taken_up() -> None:
    data = load("digits", subset=100)
    sampler = BatchSampler(data, 32, seed=3)
    first = list(sampler.epoch())
    assert [len(labels) for _, labels in first] == [32, 32, 32, 4] == [32] * (len(sampler) - 1) + [4]
    seen = torch.cat([inputs for inputs, _ in first]).flatten(1)
    assert torch.equal(seen.unique(dim=0), data.inputs(data.train.images).flatten(1).unique(dim=0))
    state = sampler.state()
    second = list(sampler.epoch())
    again = BatchSampler(data, 32, seed=9)
    again.load_state(state)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(second, again.epoch(), strict=True))
    assert not torch.equal(first[0][0], second[0][0])


def test_sampler_leaves_the_callers_random_state() -> None:
    before = torch.get_rng_state()
    list(BatchSampler(load("digits", subset=40), 16, augment=True).epoch())
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_shifts_and_mirrors() -> None:
    image = torch.arange(1, 257, dtype=torch.int64).view(1, 1, 16, 16)
    made = shift_and_mirror(image.expand(64, 1, 16, 16), torch.Generator().manual_seed(0))
    assert made.shape == (64, 1, 16, 16)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0, 0]
    windows = {
        tuple(side[row : row + 16, column : column + 16].flatten().tolist())
        for side in (padded, padded.flip(1))
        for row in range(5)
        for column in range(5)
    }
    found = {tuple(one.flatten().tolist()) for one in made}
    assert found <= windows
    assert len(found) > 20


def test_batches_and_devices() -> None:
    split = Split(torch.zeros(7, 1, 8, 8, dtype=torch.uint8), torch.arange(7))
    data = DataSet("made", split, split, split).to("cpu")
    assert [len(labels) for _, labels in data.batches(data.test, 3)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("mlp", (1, 28, 28), 466_698),
        ("convnet", (1, 28, 28), 814_186),
        # He 2016 give 0.27 M for the net of 20 layers.
        ("resnet20", (3, 32, 32), 269_722),
        ("resnet8", (1, 8, 8), 75_002),
    ],
)
def test_models_have_the_published_sizes(name: str, shape: tuple[int, ...], count: int) -> None:
    model = models.build(name, shape)
    assert sum(each.numel() for each in model.parameters()) == count
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "shape", "options", "reason"),
    [
        ("vgg", (3, 32, 32), {}, "there is no model called 'vgg'"),
        ("resnet9", (3, 32, 32), {}, "6n[+]2 layers"),
        ("resnet20", (3, 32, 32), {"depth": 3}, "resnet20 has no option 'depth'; it has width"),
        ("convnet", (64,), {}, "convnet takes images"),
        ("mlp", (64,), {"activation": "sine"}, "there is no activation called 'sine'"),
    ],
)
def test_models_refuse(name: str, shape: tuple[int, ...], options: dict, reason: str) -> None:
    with pytest.raises(models.ModelError, match=reason):
        models.build(name, shape, **options)
