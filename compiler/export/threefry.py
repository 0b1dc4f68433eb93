"""Random numbers that are a function of a seed, a step and a place: Threefry-2x32 with 13 rounds.

Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". The key is (seed, step), the counter
(position, site): *position* numbers the elements of a tensor, *site* the tensors of a program. Nothing is kept from
one draw to the next, so a step can be repeated, and every processor that adds and rotates 32 bits draws the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 13
_WORD = 0xFFFFFFFF


def threefry(key: Sequence[Any], counter: Sequence[Any], rounds: int = ROUNDS) -> tuple[Any, Any]:
    """Mixes a counter with a key.

    Args:
        key: two words of 32 bits, as int64 tensors or arrays.
        counter: two words, likewise.
        rounds: how often to mix.

    Returns:
        Two words, each as evenly spread as a random one.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    x, y = (counter[0] + keys[0]) & _WORD, (counter[1] + keys[1]) & _WORD
    for number in range(rounds):
        shift = ROTATIONS[number % 8]
        x = (x + y) & _WORD
        y = (_left(y, shift) | _right(y, 32 - shift)) ^ x
        if number % 4 == 3:
            turn = number // 4 + 1
            x, y = (x + keys[turn % 3]) & _WORD, (y + keys[(turn + 1) % 3] + turn) & _WORD
    return x, y


def _left(word: Any, bits: int) -> Any:
    """Shifts 32 bits to the left, in operators that every engine has; what leaves them is lost."""
    return (word * 2**bits) & _WORD


def _right(word: Any, bits: int) -> Any:
    """Shifts 32 bits to the right, likewise."""
    if isinstance(word, torch.Tensor):
        return torch.div(word, 2**bits, rounding_mode="floor")
    return word // 2**bits


@torch.library.custom_op("altprop::uniform", mutates_args=())
def uniform(seed: torch.Tensor, step: torch.Tensor, site: int, size: Sequence[int]) -> torch.Tensor:
    """Draws uniform numbers in [0, 1), multiples of 2^-24, in float32.

    Args:
        seed: an integer, without dimensions.
        step: an integer, without dimensions.
        site: which draw of the program this is.
        size: the shape.
    """
    return draw(seed, step, site, size)


def draw(seed: torch.Tensor, step: torch.Tensor, site: int, size: Sequence[int]) -> torch.Tensor:
    """Draws as `uniform` does, operator by operator."""
    count = math.prod(size)
    position = torch.arange((count + 1) // 2)
    words = threefry((seed & _WORD, step & _WORD), (position, torch.full_like(position, site)))
    bits = torch.stack(words).flatten()[:count]
    return (_right(bits, 8).to(torch.float32) * 2.0**-24).reshape(tuple(size))


@uniform.register_fake
def _(seed: torch.Tensor, step: torch.Tensor, site: int, size: Sequence[int]) -> torch.Tensor:
    return seed.new_empty(tuple(size), dtype=torch.float32)


@dataclasses.dataclass
class Random:
    """The random numbers of one run of a program: seed, step, and how many draws there were."""

    seed: torch.Tensor
    step: torch.Tensor
    sites: int = 0

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Draws numbers in the shape of a tensor."""
        self.sites += 1
        return torch.ops.altprop.uniform(self.seed, self.step, self.sites - 1, tuple(like.shape))

    def keep(self, like: torch.Tensor, probability: float) -> torch.Tensor:
        """Draws a mask that is true with a probability."""
        return self.uniform(like) >= 1.0 - probability

    def native_dropout(self, x: torch.Tensor, p: float, train: bool | None = True) -> tuple[torch.Tensor, torch.Tensor]:
        """In the place of `aten.native_dropout`."""
        if train is False or p == 0.0:
            return x.clone(), torch.ones_like(x, dtype=torch.bool)
        mask = self.keep(x, 1.0 - p)
        return x * mask * (1.0 / (1.0 - p) if p < 1.0 else 0.0), mask

    def bernoulli(self, x: torch.Tensor, p: float = 0.5, generator: Any = None) -> torch.Tensor:
        """In the place of `aten.bernoulli.p`."""
        return self.keep(x, p).to(x.dtype)

    def rand_like(self, x: torch.Tensor, **options: Any) -> torch.Tensor:
        """In the place of `aten.rand_like`."""
        return self.uniform(x).to(options.get("dtype") or x.dtype)

    def randn_like(self, x: torch.Tensor, **options: Any) -> torch.Tensor:
        """In the place of `aten.randn_like`: Box and Muller's transform of two uniform numbers."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self.uniform(x)))
        return (radius * torch.cos(2.0 * math.pi * self.uniform(x))).to(options.get("dtype") or x.dtype)

    def noise(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Draws standard normal numbers for an input that wants them anew at every run."""
        return self.randn_like(self.seed.new_empty(tuple(shape), dtype=dtype))
