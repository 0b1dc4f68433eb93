"""Distributions of torch inside models and losses check their arguments by values, which a trace does not have."""

import contextlib
from collections.abc import Iterator

from torch.distributions import Distribution


@contextlib.contextmanager
def unchecked_distributions() -> Iterator[None]:
    """Takes the arguments of distributions as they are, as `validate_args=False` does, while something is traced."""
    before = Distribution._validate_args  # torch has a function to set it, and none to ask
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
