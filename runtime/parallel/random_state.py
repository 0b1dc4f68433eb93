"""torch's global random state as text: dropout and other noise of the model draw from it."""

import base64
from collections.abc import Mapping

import torch


def random_state() -> dict[str, str]:
    """Returns the state of the CPU's generator, and of the present GPU's where one is in use, by kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return {kind: base64.b64encode(state.numpy().tobytes()).decode() for kind, state in states.items()}


def set_random_state(states: Mapping[str, str]) -> None:
    """Puts states back that `random_state` returned; a kind of device that is not in use here stays as it is.

    Raises:
        ValueError: a state is none.
    """
    setters = {"cpu": torch.set_rng_state}
    if torch.cuda.is_initialized():
        setters["cuda"] = torch.cuda.set_rng_state
    for kind, set_state in setters.items():
        if kind in states:
            try:
                set_state(torch.frombuffer(bytearray(base64.b64decode(states[kind])), dtype=torch.uint8))
            except (ValueError, RuntimeError, TypeError) as error:
                raise ValueError(f"the random state of the {kind} is none: {error}") from error
