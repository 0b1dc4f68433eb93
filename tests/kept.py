"""Captures and nets that are made once for all tests of a process; each test gets a model, or a net, of its own."""

import copy
import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import processor_time
from torch import nn
from zoo import BATCH, Case, single

import altprop

MOST = 64
"""How many nets are kept, those that were asked for last."""
_CAPTURES: dict[Hashable, altprop.Captured] = {}
_NETS: dict[Hashable, Any] = {}


def capture(key: Hashable, model: nn.Module, *args: Any, **kwargs: Any) -> altprop.Captured:
    """Captures a model; a later one of the same key has the same forward, and is not captured again."""
    if key not in _CAPTURES:
        with processor_time.shared():
            _CAPTURES[key] = altprop.capture(copy.deepcopy(model), *args, **kwargs)
    return dataclasses.replace(_CAPTURES[key], model=model)


def captured(case: Case, in_float32: bool = False) -> altprop.Captured:
    """A new model of the zoo, captured."""
    inputs, model = case.inputs(BATCH), case.model()
    if in_float32:
        inputs, model = single(inputs), model.float()
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    return capture((case, in_float32), model, *args, **kwargs)


def compiled(case: Case, rule: Any, in_float32: bool = False, **options: Any) -> Any:
    """A net of a new model of the zoo."""
    loss = copy.deepcopy(case.loss).float() if in_float32 and isinstance(case.loss, nn.Module) else case.loss
    try:
        return altprop.compile(captured(case, in_float32), rule, loss=loss, **options)
    except BaseException:
        _CAPTURES.pop((case, in_float32), None)  # a rule that failed may have fixed a size of the batch
        raise


def net(case: Case, rule: Any, in_float32: bool = False, **options: Any) -> Any:
    """A net that has not trained: a copy of one that is compiled once for each case, rule and options.

    Where the loss is no name, a net compiles at its first call, and a copy would capture anew: none is kept.
    """
    if not isinstance(case.loss, str):
        return compiled(case, rule, in_float32, **options)
    key = case, repr(rule), in_float32, repr(sorted(options.items()))
    return once(key, lambda: compiled(case, rule, in_float32, **options))


def once(key: Hashable, make: Callable[[], Any]) -> Any:
    """A copy of the net of this key, which is compiled when it is asked for first."""
    found = _NETS.pop(key, None)
    if found is None:
        with processor_time.shared():
            found = make()
    _NETS[key] = found
    if len(_NETS) > MOST:
        del _NETS[next(iter(_NETS))]
    return copy.deepcopy(found)
