"""A text as a row of characters."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from altprop.data.dataset import DataError
from altprop.data.read_whole import read_file

_SHORTEST = 1000


@dataclasses.dataclass(frozen=True)
class Characters:
    """A text whose characters are numbered: `train` is its first nine tenths, `validation` the rest."""

    alphabet: str
    train: torch.Tensor
    validation: torch.Tensor

    def unigram_entropy(self) -> float:
        """Entropy of single characters in nats: the loss of a model that knows how often each occurs."""
        share = torch.bincount(self.train, minlength=len(self.alphabet)).double() / len(self.train)
        return float(-(share * share.clamp_min(1e-12).log()).sum())

    def batch(self, size: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws windows of the training text: characters and the ones that follow them, (size, length) each."""
        starts = torch.randint(len(self.train) - length - 1, (size,), generator=generator)
        windows = self.train[starts[:, None] + torch.arange(length + 1)]
        return windows[:, :-1], windows[:, 1:]


def load_characters(folder: str | Path) -> Characters:
    """Loads `folder/tinyshakespeare/input.txt`.

    Raises:
        DataError: the file is missing or no text; the message says where it can be had.
    """
    path = Path(folder) / "tinyshakespeare" / "input.txt"
    if not path.exists():
        raise DataError(
            f"{path.name} is missing; fetch data/tinyshakespeare/input.txt from github.com/karpathy/char-rnn into "
            f"{path.parent}, or name another folder by ALTPROP_DATA"
        )
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8 ({error.reason}); fetch it again") from error
    if len(text) < _SHORTEST:
        raise DataError(f"{path} has {len(text)} characters, of {_SHORTEST} that a text needs; fetch it again")
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    alphabet, tokens = np.unique(codes, return_inverse=True)
    split = len(tokens) * 9 // 10
    train, validation = torch.from_numpy(tokens.astype(np.int64)).split([split, len(tokens) - split])
    return Characters("".join(map(chr, alphabet.tolist())), train, validation)
