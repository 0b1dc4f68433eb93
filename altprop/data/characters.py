"""A text as a row of characters."""

import dataclasses
from pathlib import Path

import torch

from altprop.data.dataset import DataError


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
        DataError: the file is missing; the message says where it can be had.
    """
    path = Path(folder) / "tinyshakespeare" / "input.txt"
    if not path.exists():
        raise DataError(
            f"{path.name} is missing; fetch data/tinyshakespeare/input.txt from github.com/karpathy/char-rnn into "
            f"{path.parent}, or name another folder by ALTPROP_DATA"
        )
    text = path.read_text("utf-8")
    alphabet = "".join(sorted(set(text)))
    number = {letter: index for index, letter in enumerate(alphabet)}
    tokens = torch.tensor([number[letter] for letter in text])
    split = len(tokens) * 9 // 10
    return Characters(alphabet, tokens[:split], tokens[split:])
