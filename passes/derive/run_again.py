"""Runs a region's forward anew at other values: what it drew stays as it was drawn.

Dropout takes the mask of the forward, and numbers that were drawn are read again. What draws in a kernel of its own, as
attention with dropout does, cannot be run again.
"""

import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.operators import is_random, short_name
from altprop.passes.derive.interpret import FREE_STRIDES, run_nodes

aten = torch.ops.aten
_DRAWN = (aten.bernoulli.p, aten.rand_like.default, aten.randn_like.default)  # whatever they are given


def run_again(
    region: str, nodes: Iterable[fx.Node], values: Mapping[fx.Node, Any], before: Mapping[fx.Node, Any]
) -> dict[fx.Node, Any]:
    """Runs operators of a region's forward.

    Args:
        region: its name, for errors.
        nodes: in topological order.
        values: what is given; the rest is computed.
        before: what the forward made.

    Raises:
        RuleError: one of the operators drew random numbers that are not known.
    """
    known, instead = dict(values), dict(FREE_STRIDES)
    for node in nodes:
        if node in known or not is_random(node):
            continue
        mask = _mask(node, before)
        if node.target in _DRAWN and node in before:
            known[node] = before[node]
        elif mask is not None:
            instead[node] = functools.partial(_masked, mask)
        else:
            raise RuleError(
                f'region "{region}": {short_name(node)} draws random numbers in the forward, so that it cannot be run '
                "at other values: use nn.Dropout, whose mask is kept, or another rule."
            )
    return run_nodes(nodes, known, instead)


def _mask(node: fx.Node, before: Mapping[fx.Node, Any]) -> torch.Tensor | None:
    if node.target is not aten.native_dropout.default:
        return None
    masks = [user for user in node.users if user.target is operator.getitem and user.args[1] == 1]
    return next((before[user] for user in masks if user in before), None)


def _masked(mask: torch.Tensor, x: torch.Tensor, probability: float, train: bool | None) -> tuple[torch.Tensor, Any]:
    """What dropout makes of another input."""
    if probability == 1 or train is False:
        return (x if train is False else torch.zeros_like(x)), mask
    return x * mask * (1 / (1 - probability)), mask
