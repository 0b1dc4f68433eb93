"""Lets `torch.export` see through `nn.TransformerEncoder` and `nn.TransformerDecoder` with a mask.

They compare the mask's values with a causal one to choose a kernel, which no capture can follow. So the model runs once
before, on the example, and the capture is given the answers in their order.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.modules import transformer

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

    with mock.patch.object(transformer, _NAME, ask), torch.no_grad():
        model(*args, **kwargs)
    with mock.patch.object(transformer, _NAME, side_effect=answers):
        yield
