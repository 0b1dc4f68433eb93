"""What a checkpoint of a scheduled run says of itself: its step, its tensors, and the digests of its files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from altprop.ir.json_document import parse_json
from altprop.runtime.whole_files import DamagedFileError, check_signature, digest_of, write_signed

NAME = "manifest.json"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor: the file that holds it, its dtype, such as "float32", and its shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    def is_like(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor has this dtype and shape."""
        return self.dtype == dtype_of(tensor) and self.shape == tuple(tensor.shape)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A whole checkpoint.

    Attributes:
        step: steps that were done.
        draws: how often noise was drawn.
        tensors: by name.
        digests: SHA-256 of each file, by its name.
        generators: torch's random state in each rank, by kind of device; none in checkpoints of older versions.
    """

    step: int
    draws: int
    tensors: Mapping[str, TensorEntry]
    digests: Mapping[str, str]
    generators: Sequence[Mapping[str, str]] = ()

    def save(self, folder: Path) -> None:
        """Writes it; with it the checkpoint is whole."""
        tensors = {name: [entry.file, entry.dtype, list(entry.shape)] for name, entry in self.tensors.items()}
        document: dict[str, Any] = {"version": VERSION, "step": self.step, "draws": self.draws}
        document |= {"digests": dict(self.digests), "generators": list(self.generators)}
        text = json.dumps({**document, "tensors": tensors}, indent=1)
        write_signed(folder / NAME, lambda file: file.write(text.encode()))

    @staticmethod
    def load(folder: Path) -> "Manifest":
        """Reads what `save` wrote.

        Raises:
            DamagedFileError: it is not as it was written, or of another version.
            OSError: it cannot be read.
        """
        with (folder / NAME).open("rb") as file:
            text = file.read(check_signature(file))
        try:
            found = parse_json(text.decode("utf-8"), NAME, DamagedFileError)
            return _checked(found)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{NAME} is of another version of altprop") from error

    def check_files(self, folder: Path, names: list[str]) -> None:
        """Compares files with their digests.

        Raises:
            DamagedFileError: one is missing or is not as it was written.
            OSError: one cannot be read.
        """
        for name in names:
            if not (folder / name).is_file():
                raise DamagedFileError(f"{name} is missing")
            if digest_of(folder / name) != self.digests[name]:
                raise DamagedFileError(f"{name} is not what was written")


def dtype_of(tensor: torch.Tensor) -> str:
    """Returns the name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def _checked(found: Any) -> Manifest:
    if found["version"] != VERSION:
        raise ValueError(found["version"])
    tensors = {
        name: TensorEntry(str(file), str(dtype), tuple(shape))
        for name, (file, dtype, shape) in found["tensors"].items()
    }
    digests = {str(name): str(digest) for name, digest in found["digests"].items()}
    plain = all(Path(name).name == name for name in digests)
    counts = (found["step"], found["draws"], *(size for entry in tensors.values() for size in entry.shape))
    sound = plain and {entry.file for entry in tensors.values()} <= digests.keys()
    if not sound or not all(isinstance(count, int) and 0 <= count < 2**63 for count in counts):
        raise ValueError("odd contents")
    generators = [{str(k): str(state) for k, state in one.items()} for one in found.get("generators", [])]
    return Manifest(found["step"], found["draws"], tensors, digests, generators)
