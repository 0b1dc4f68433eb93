"""Models inside a wrapper: taken out where the wrapper only speeds a model up, refused where it does more.

A *wrapper* is a module whose forward is another module's. `torch.compile` and `altprop.compile` return one, and so do
torch's `DataParallel` and `DistributedDataParallel`.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.torch_private import OptimizedModule

_MANY = (
    "{name} runs a model on several devices: compile the model inside, `{name}.module`, and say devices= to "
    "altprop.compile, or put the compiled net into DistributedDataParallel."
)
_INSIDE = (
    'module "{path}" is wrapped by {by}, so altprop would see a part that is compiled already: give '
    "altprop.compile the whole model as it was before."
)


def unwrap(model: Any) -> Any:
    """Returns the model inside of what `torch.compile` or `altprop.compile` returned; another model as it is.

    Raises:
        CompileError: the model runs on several devices, or a part of it is wrapped; says what to do instead.
    """
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise CompileError(_MANY.format(name=type(model).__name__))
    if by := _wrapped_by(model):
        return unwrap(getattr(model, by[1]))
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if by := _wrapped_by(module):
            raise CompileError(_INSIDE.format(path=path, by=by[0]))
    return model


def _wrapped_by(module: Any) -> tuple[str, str] | None:
    """By what a module is wrapped, and the attribute that holds it."""
    if isinstance(module, OptimizedModule):
        return "torch.compile", "_orig_mod"
    if getattr(type(module), "is_local_net", False):
        return "altprop.compile", "model"
    return None


@contextlib.contextmanager
def arguments_named(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Gives a forward that takes `*args` or `**kwargs` names for what it is given, while this lasts.

    `torch.export` asks the signature of a forward what its inputs are, and makes one input of `*args`.
    """
    signature = inspect.signature(model.forward)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not any(parameter.kind in variadic for parameter in signature.parameters.values()):
        yield
        return
    forward, own = model.forward, vars(model).get("forward")

    def named(*given: Any, **named_given: Any) -> Any:
        return forward(*given, **named_given)

    # Python lets any function have a signature of its own, and types of functions do not know that.
    named.__signature__ = _signature(signature, args, kwargs)  # type: ignore[attr-defined]
    vars(model)["forward"] = named
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def _signature(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.Signature:
    """One parameter for each argument of a call: those given by position under the names that they have."""
    kinds = inspect.Parameter
    by_position = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in by_position]
    names = [*names[: len(args)], *(f"args_{index}" for index in range(len(names), len(args)))]
    parameters = [kinds(name, kinds.POSITIONAL_ONLY) for name in names]
    return signature.replace(parameters=[*parameters, *(kinds(name, kinds.KEYWORD_ONLY) for name in kwargs)])
