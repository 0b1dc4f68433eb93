"""Captures and nets that are made once for all tests of a process; each test gets a model, or a net, of its own.

A capture is half of the time of a compilation, and holds no numbers of a model. So models that are alike in all that a
forward can depend on share one: see `form_of`. Tests of capture itself call `altprop.compile`.
"""

import copy
import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import processor_time
import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_cases import BATCH, Case, single

import altprop
from altprop.ir.reads import IDENTITY

MOST = 64
"""How many nets are kept, and twice as many captures: those that were asked for last."""
PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.Size)
_CAPTURES: dict[Hashable, altprop.Captured] = {}
_NETS: dict[Hashable, Any] = {}


class Same:
    """An object that is equal to itself alone, and lives as long as the key that it is in."""

    def __init__(self, one: Any) -> None:
        self.one = one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.one is other.one

    def __hash__(self) -> int:
        return id(self.one)


def value_of(one: Any) -> Hashable:
    """A value in a key: plain ones are equal by value, with their types, others where they are the same object."""
    if isinstance(one, PLAIN):
        return type(one), one
    if isinstance(one, tuple | list):
        return type(one), tuple(map(value_of, one))
    return Same(one)


def tensor_form(one: Any) -> Hashable:
    """What a forward can depend on of an input, a parameter or a buffer."""
    if not isinstance(one, torch.Tensor):
        return value_of(one)
    return type(one), one.dtype, tuple(one.shape), one.stride(), str(one.device), one.requires_grad


def form_of(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """What a forward can depend on, but for the numbers of its tensors: classes, attributes, forms of tensors."""
    usual = set(vars(nn.Module())) - {"training"}
    modules = tuple(
        (name, type(module), tuple((key, value_of(value)) for key, value in vars(module).items() if key not in usual))
        for name, module in model.named_modules(remove_duplicate=False)
    )
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first = {id(tensor): name for name, tensor in reversed(tensors)}
    forms = tuple((name, tensor_form(tensor), first[id(tensor)]) for name, tensor in tensors)
    leaves, structure = pytree.tree_flatten((tuple(args), dict(kwargs)))
    return modules, tuple(map(Same, hooks)), forms, str(structure), tuple(map(tensor_form, leaves))


def capture(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], key: Hashable) -> altprop.Captured:
    """Captures a model; a later one of the same key is not captured again."""
    found = _CAPTURES.pop(key, None)
    if found is None:
        with processor_time.shared():
            found = altprop.capture(copy.deepcopy(model), *args, **kwargs)
    keep(_CAPTURES, key, found, 2 * MOST)
    reads = tuple(
        dataclasses.replace(one, value=one.now(model)) if one.kind == IDENTITY else one for one in found.graph.reads
    )
    graph = dataclasses.replace(found.graph, reads=reads)  # a model that is alike has objects of its own
    return dataclasses.replace(found, model=model, args=tuple(args), kwargs=dict(kwargs), graph=graph)


def compile_by(
    key: Hashable, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], rule: Any, **options: Any
) -> Any:
    """Compiles a model; what a rule that fails has read may have been fixed by it, such as the size of the batch."""
    captured = capture(model, args, kwargs, key)
    try:
        return altprop.compile(captured, rule, **options)
    except BaseException:
        _CAPTURES.pop(key, None)
        raise


def compile(
    model: nn.Module, rule: Any = "reclra", *, example_inputs: Any = None, example_kwargs: Any = None, **options: Any
) -> Any:
    """As `altprop.compile` with example inputs; a model that is like an earlier one is not captured again."""
    args = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs or ()
    kwargs = example_kwargs or {}
    return compile_by(form_of(model, args, kwargs), model, args, kwargs, rule, **options)


def given(case: Case, in_float32: bool) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A new model of the zoo and its example inputs."""
    inputs, model = case.inputs(BATCH), case.model()
    if in_float32:
        inputs, model = single(inputs), model.float()
    return (model, (), inputs) if isinstance(inputs, dict) else (model, inputs, {})


def captured(case: Case) -> altprop.Captured:
    """A new model of the zoo, captured."""
    return capture(*given(case, False), (case, False))


def compiled(case: Case, rule: Any, in_float32: bool = False, **options: Any) -> Any:
    """A net of a new model of the zoo."""
    loss = copy.deepcopy(case.loss).float() if in_float32 and isinstance(case.loss, nn.Module) else case.loss
    return compile_by((case, in_float32), *given(case, in_float32), rule, **{"loss": loss, **options})


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
    keep(_NETS, key, found, MOST)
    return copy.deepcopy(found)


def keep(store: dict[Hashable, Any], key: Hashable, one: Any, most: int) -> None:
    """Puts something in, as the newest, and lets the oldest go."""
    store[key] = one
    if len(store) > most:
        del store[next(iter(store))]
