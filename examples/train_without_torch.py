"""Trains a network from a step file with NumPy and onnxruntime alone: no torch, no altprop.

    altprop export convnet --data fashion-mnist --rule dfa --optimizer sgd --momentum 0.9 -o step.onnx
    python examples/train_without_torch.py step.onnx --data-dir data

The file's contract, `step.json`, says which states go in and come out; `step.npz` holds their first values. Data are
the idx files of MNIST or Fashion-MNIST, in FashionMNIST/raw or MNIST/raw below the folder.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def read_idx(path: Path) -> np.ndarray:
    """Reads a file of the idx format: four bytes of type and rank, a size for each dimension, the numbers."""
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def load(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (samples, 1, 28, 28) with mean 0 and deviation 1, and labels."""
    images, labels = (read_idx(folder / name) for name in FILES[part])
    return ((images[:, None] / 255.0 - 0.2860) / 0.3530).astype(np.float32), labels.astype(np.int64)


class Step:
    """A step file, and the state that goes round."""

    def __init__(self, path: Path, threads: int) -> None:
        self.contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]
        with np.load(path.parent / self.contract["initial"]) as stored:
            self.state = {state["name"]: stored[state["name"]] for state in self.contract["states"]}
        self.scalars = {s["name"]: np.array(s["default"], s["dtype"]) for s in self.contract["scalars"]}
        self.input, self.target = (head["name"] for head in self.contract["inputs"])

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Trains on one batch; returns all results."""
        given = {self.input: images, self.target: labels, **self.state, **self.scalars}
        made = dict(zip(self.names, self.session.run(self.names, given), strict=True))
        self.state |= {s["name"]: made[s["next"]] for s in self.contract["states"] if s["next"]}
        return made

    def accuracy(self, images: np.ndarray, labels: np.ndarray, batch: int) -> float:
        """Share of right answers. The step's own prediction serves: what it would learn is thrown away."""
        right, kept = 0, dict(self.state)
        for first in range(0, len(images), batch):
            made = self(images[first : first + batch], labels[first : first + batch])
            right += int((made["prediction"].argmax(1) == labels[first : first + batch]).sum())
            self.state = dict(kept)
        return right / len(images)


def batches(count: int, batch: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the indices of shuffled batches."""
    order = generator.permutation(count)
    for step in range(steps):
        first = (step * batch) % (count - batch + 1)
        if step and first < batch:
            order = generator.permutation(count)
        yield order[first : first + batch]


def main() -> None:
    """Trains, and says how well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", type=Path, help="a step file, beside its .json and .npz")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--set", default="FashionMNIST", choices=["FashionMNIST", "MNIST"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", type=int, default=10000, help="how many test images to use")
    parser.add_argument("--threads", type=int, default=0)
    words = parser.parse_args()
    folder = words.data_dir / words.set / "raw"
    for path in (words.step, *(folder / name for names in FILES.values() for name in names)):
        if not path.exists():
            raise SystemExit(f"{path} is not there: name a step file, and by --data-dir the folder of the data sets.")
    images, labels = load(folder, "train")
    step = Step(words.step, words.threads)
    start = time.perf_counter()
    generator = np.random.default_rng(words.seed)
    for number, rows in enumerate(batches(len(images), words.batch, words.steps, generator), start=1):
        loss = step(images[rows], labels[rows])["loss"]
        if number % 50 == 0:
            print(f"step {number}: loss {float(loss):.4f}")
    seconds = time.perf_counter() - start
    tested, truth = load(folder, "test")
    share = step.accuracy(tested[: words.test], truth[: words.test], 250)
    loaded = "torch" in sys.modules or "altprop" in sys.modules
    print(json.dumps({"accuracy": share, "seconds": round(seconds, 2), "torch_loaded": loaded}))


if __name__ == "__main__":
    main()
