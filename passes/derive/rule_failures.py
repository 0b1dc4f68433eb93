"""Says what is wrong with a rule: the line of the user's file, and what to write instead."""

import re
from collections.abc import Mapping

import torch

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.local import LocalGraph
from altprop.ir.sizes import agree
from altprop.ir.user_lines import place_of
from altprop.rules.base import Rule

# What torch says: what it means for who writes a rule.
_MEANINGS = (
    (
        r"data-dependent|GuardOnDataDependent|Could not guard|is_nonzero",
        "a choice by the numbers in a tensor cannot be a graph of operators: use torch.where, clamp or a mask",
    ),
    (
        r"\.item\(\)|_local_scalar_dense|unbacked|DataDependentOutput",
        "a tensor is turned into a Python number, which cannot be a graph of operators: keep it a tensor",
    ),
    (r"numpy", "a tensor leaves torch for NumPy: use torch operators"),
)


def explain(rule: Rule, region: str, error: Exception, captured: CapturedGraph) -> RuleError:
    """Returns the sentence for an error that a rule's function raised."""
    meaning = next((meaning for pattern, meaning in _MEANINGS if re.search(pattern, str(error))), None)
    said = meaning or f"{type(error).__name__}: {captured.first_line(error)[:300]}"
    return RuleError(f'the rule "{rule}" failed on region "{region}"{place_of(error)}: {said}.')


def check_error(rule: Rule, local: LocalGraph, captured: CapturedGraph, e: object) -> None:
    """Refuses an error that is not of its region's shape.

    Raises:
        RuleError: says what came and what was wanted.
    """
    region = local.region
    h, z = (captured.value(name) for name in (region.preactivation, region.activity))
    if not isinstance(e, torch.Tensor) or not (agree(e.shape, h.shape) or agree(e.shape, z.shape)):
        raise RuleError(f"{_of(rule, local)} error returned {_form(e)}; the pre-activation is {_form(h)}.")


def check_gradients(rule: Rule, local: LocalGraph, captured: CapturedGraph, moved: Mapping[str, object]) -> None:
    """Refuses updates of parameters that are another's, or of another shape than theirs.

    Raises:
        RuleError: names the parameter.
    """
    own = {name: captured.value(place) for name, place in zip(local.theta, local.theta_values, strict=True)}
    for name, found in moved.items():
        if name not in own:
            raise RuleError(f'{_of(rule, local)} update moves "{name}"; the region has {", ".join(own)}.')
        if not isinstance(found, torch.Tensor) or not agree(found.shape, own[name].shape):
            raise RuleError(f'{_of(rule, local)} update of "{name}", {_form(own[name])}, is {_form(found)}.')


def check_assigned(
    rule: Rule, local: LocalGraph, present: Mapping[str, torch.Tensor], values: Mapping[str, object]
) -> None:
    """Refuses values for what is not the region's, or of another shape than what they replace.

    Raises:
        RuleError: names the parameter.
    """
    for name, found in values.items():
        if name not in present:
            raise RuleError(f'{_of(rule, local)} assign replaces "{name}"; the region has {", ".join(present)}.')
        if not isinstance(found, torch.Tensor) or not agree(found.shape, present[name].shape):
            raise RuleError(f'{_of(rule, local)} assign of "{name}", {_form(present[name])}, is {_form(found)}.')


def _of(rule: Rule, local: LocalGraph) -> str:
    return f'the rule "{rule}", region "{local.region.name}": its'


def _form(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a value of the type {type(value).__name__}"
    sizes = ("N" if isinstance(size, torch.SymInt) else str(size) for size in value.shape)
    return f"a tensor of shape ({', '.join(sizes)})"
