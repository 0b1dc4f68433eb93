"""Lets `torch.export` see through `nn.TransformerEncoder` and `nn.TransformerDecoder` with a mask.

They compare the mask's values with a causal one to choose a kernel, which no capture can follow. So the model runs once
before, on the example, and the capture is given the answers in their order.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.modules import transformer

from altprop.ir.alone import compiles_here

_NAME = "_detect_is_causal_mask"


@contextlib.contextmanager
def known_masks(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
    """Answers the question whether a mask is causal from a run of the model on its example.

    The caller puts back buffers and the random state, which the run may change.
    """
    kinds = (nn.TransformerEncoder, nn.TransformerDecoder)
    if not any(isinstance(module, kinds) for module in model.modules()):
        yield
        return
    asked = getattr(transformer, _NAME)
    answers: list[bool] = []

    def ask(*given: Any, **named: Any) -> bool:
        answers.append(asked(*given, **named))
        return answers[-1]

    with mock.patch.object(transformer, _NAME, _here(ask, asked)), torch.no_grad():
        model(*args, **kwargs)
    answer = mock.Mock(side_effect=answers)
    with mock.patch.object(transformer, _NAME, _here(answer, asked)):
        yield


def _here(ours: Callable[..., Any], torchs: Callable[..., Any]) -> Callable[..., Any]:
    """What the compiling thread calls, where all others go on to call torch's own."""
    return lambda *given, **named: (ours if compiles_here() else torchs)(*given, **named)
