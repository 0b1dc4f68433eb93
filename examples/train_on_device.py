"""Trains a network on digits from a step file with NumPy and ExecuTorch's C++ runtime alone: no torch, no altprop.

    altprop export convnet --data digits --rule dfa --optimizer sgd --momentum 0.9 --batch 32 -o step.pte
    python examples/train_on_device.py step.pte

The file's contract, `step.json`, says which states go in and come out; `step.npz` holds their first values. What was
trained is written as safetensors: `net.model.load_state_dict(safetensors.torch.load_file("trained.safetensors"))`.

ExecuTorch's Python package imports torch to pass tensors along; its C++ runtime, in the same wheel, knows nothing of
torch. So `on_device/step.cpp` puts four C functions around that runtime, and a C++ compiler builds them here once. On a
device the same file is compiled against the runtime that was built for it.
"""

import argparse
import ctypes
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).parent / "on_device" / "step.cpp"
TEST = 360
SAFETENSORS = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "bool": "BOOL"}


def place_of(package: str, advice: str) -> Path:
    """Returns the folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: {advice}.")
    return Path(next(iter(found.submodule_search_locations)))


def build(library: Path) -> Path:
    """Compiles the C functions against ExecuTorch's wheel, unless they are there."""
    if library.exists():
        return library
    root = place_of("executorch", "pip install executorch")
    headers = root / "include"
    words = ["-O2", "-w", "-std=c++17", "-shared", "-fPIC", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    words += [f"-I{headers}", f"-I{headers / 'executorch/runtime/core/portable_type/c10'}"]
    words += [str(SOURCE), "-o", str(library), f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}", "-Wl,--no-as-needed"]
    words += ["-lexecutorch", "-lexecutorch_kernels_optimized", "-lexecutorch_backend_xnnpack"]
    try:
        subprocess.run(["c++", *words], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"the runtime's C functions could not be built with c++: {error}.") from error
    return library


class Step:
    """A step file in ExecuTorch, and the state that goes round: each has one place to read and another to write."""

    def __init__(self, path: Path, library: Path) -> None:
        self.contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        self.runtime = ctypes.CDLL(str(library))
        self.runtime.step_open.restype = ctypes.c_void_p
        self.runtime.step_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
        self.runtime.step_arena.restype = ctypes.c_size_t
        self.runtime.step_arena.argtypes = [ctypes.c_void_p]
        self.runtime.step_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        error = ctypes.c_int()
        self.handle = self.runtime.step_open(str(path).encode(), ctypes.byref(error))
        if not self.handle:
            raise SystemExit(f"ExecuTorch does not load {path}: error {error.value:#x}.")
        with np.load(path.parent / self.contract["initial"]) as stored:
            self.state = {one["name"]: stored[one["name"]] for one in self.contract["states"]}
        self.scalars = {one["name"]: np.array(one["default"], one["dtype"]) for one in self.contract["scalars"]}
        self.input, self.target = (head["name"] for head in self.contract["inputs"])
        self.next = {one["next"]: one["name"] for one in self.contract["states"] if one["next"]}
        self.spare = {name: np.empty_like(self.state[name]) for name in self.next.values()}
        batch = self.contract["batch"]
        self.results = {
            one["name"]: np.empty([batch if size == "batch" else size for size in one["shape"]], one["dtype"])
            for one in self.contract["outputs"]
        }

    @property
    def arena(self) -> int:
        """Bytes that the plan of memory holds between the first operator and the last."""
        return int(self.runtime.step_arena(self.handle))

    def __call__(self, images: np.ndarray, labels: np.ndarray, learn: bool = True) -> dict[str, np.ndarray]:
        """Trains on one batch, or with `learn=False` only predicts; returns the loss and the prediction."""
        given = {self.input: np.ascontiguousarray(images), self.target: np.ascontiguousarray(labels)}
        given |= self.state | self.scalars
        made = {name: self.spare[self.next[name]] if name in self.next else self.results[name] for name in self.gives}
        failed = self.runtime.step_run(self.handle, _places(given, self.contract["takes"]), _places(made, self.gives))
        if failed:
            raise SystemExit(f"the step failed with ExecuTorch's error {failed:#x}.")
        if learn:
            for name in self.spare:
                self.state[name], self.spare[name] = self.spare[name], self.state[name]
        return self.results

    @property
    def gives(self) -> list[str]:
        """The names of the results, in order."""
        names: list[str] = self.contract["gives"]
        return names

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of right answers; the last batch is filled up."""
        batch, right = self.contract["batch"], 0
        for first in range(0, len(images), batch):
            rows = np.arange(first, first + batch) % len(images)
            count = min(batch, len(images) - first)
            guessed = self(images[rows], labels[rows], learn=False)["prediction"].argmax(1)
            right += int((guessed == labels[rows])[:count].sum())
        return right / len(images)

    def weights(self) -> dict[str, np.ndarray]:
        """The model's parameters and buffers by its own keys, but for buffers that it does not keep."""
        held = [one for one in self.contract["states"] if one["part"] in ("parameter", "buffer")]
        return {one["name"]: self.state[one["name"]] for one in held if one["state_dict"]}


def _places(arrays: dict[str, np.ndarray], names: list[str]) -> Any:
    return (ctypes.c_void_p * len(names))(*(arrays[name].ctypes.data for name in names))


def save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Writes arrays: the length of a header, the header in JSON, the numbers one behind another."""
    header, place = {}, 0
    for name, array in arrays.items():
        ends = [place, place + array.nbytes]
        header[name] = {"dtype": SAFETENSORS[array.dtype.name], "shape": list(array.shape), "data_offsets": ends}
        place = ends[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values()))


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns scikit-learn's 1,797 digits, (samples, 1, 8, 8) with mean 0 and deviation 1, and their labels."""
    table = place_of("sklearn", "pip install scikit-learn") / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(table, delimiter=",", dtype=np.float32)
    images = rows[:, :64].reshape(-1, 1, 8, 8)
    return (images - images.mean()) / images.std(), rows[:, 64].astype(np.int64)


def main() -> None:
    """Trains, says how well and in how much memory, and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", type=Path, help="a step file, beside its .json and .npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=None, help="learning rate; the file's own unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("trained.safetensors"))
    parser.add_argument("--library", type=Path, default=None, help="where the C functions are built; beside the step")
    words = parser.parse_args()
    if not words.step.exists():
        raise SystemExit(f"{words.step} is not there: write one with altprop export ... -o step.pte.")
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:TEST], order[TEST:]
    step = Step(words.step, build(words.library or words.step.with_suffix(".so").absolute()))
    if words.lr is not None:
        step.scalars["lr"] = np.array(words.lr, np.float32)
    held = sum(array.nbytes for array in step.state.values())
    print(f"arena {step.arena:,} bytes, states {held:,} bytes, a batch of {step.contract['batch']}")
    batch, generator = step.contract["batch"], np.random.default_rng(words.seed)
    start = time.perf_counter()
    for epoch in range(words.epochs):
        rows = generator.permutation(train)
        for first in range(0, len(rows) - batch + 1, batch):
            chosen = rows[first : first + batch]
            loss = step(images[chosen], labels[chosen])["loss"]
        print(f"epoch {epoch + 1}: loss {float(loss):.4f}")
    seconds = time.perf_counter() - start
    save_safetensors(step.weights(), words.out)
    share = step.accuracy(images[test], labels[test])
    loaded = "torch" in sys.modules or "altprop" in sys.modules
    print(json.dumps({"accuracy": share, "seconds": round(seconds, 2), "arena": step.arena, "torch_loaded": loaded}))


if __name__ == "__main__":
    main()
