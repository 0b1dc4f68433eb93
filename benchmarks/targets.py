"""Time of a full step of the rules with targets and with local losses, beside plain autograd.

Under some rules a region learns more than its own parameters: an inverse, or a classifier of its own. So these rules do
more work than backpropagation by nature, and their ratios may be above 1.
"""

from collections.abc import Sequence

import torch

from benchmarks.form import Table
from benchmarks.interleaved import ratios
from benchmarks.step import mlp, our_step, plain_step

NAMES = ("MLP 784-5x256-10, batch 128",)
RULES = ("drtp", "dtp", "tp", "ddtp", "local_loss", "local_loss(beta=0.0)")
BATCH = 128


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Times every rule right after plain autograd, round after round."""
    tables = []
    for name in names:
        torch.manual_seed(0)
        x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
        candidates = {f"altprop {rule}": our_step(mlp(), rule, x, y) for rule in RULES}
        found = ratios(plain_step(mlp(), x, y), candidates, rounds, 20, name)
        tables.append(Table(name, {title: {"time": cell} for title, cell in found.items()}))
    return tuple(tables)
