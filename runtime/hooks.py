"""Hooks of modules and parameters, which a program does not run.

A net runs a program that was made from the model once. A hook that stood there then was part of what was traced: what
it changes in tensors is in the program, as torch's own hooks (weight norm, pruning) are. It is not called again.
"""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn

from altprop.ir.torch_private import HOOK_TABLES, hooks_of_tensor

_WORDS = dict(zip(HOOK_TABLES, ("forward pre-hook", "forward hook", "backward pre-hook", "backward hook"), strict=True))
_OURS = ("torch", "altprop")


def torchs_hooks(module: nn.Module) -> tuple[int, ...]:
    """Returns the identities of the hooks by which torch computes weights: with others it is another model."""
    return tuple(id(hook) for kind in HOOK_TABLES for hook in getattr(module, kind).values() if _is_torchs(hook))


def users_hooks(model: nn.Module) -> Iterator[tuple[Any, str]]:
    """Yields the hooks of modules and parameters that a user registered, each with a phrase that names it."""
    for path, module in model.named_modules():
        for kind in HOOK_TABLES:
            for hook in getattr(module, kind).values():
                if not _is_torchs(hook):
                    yield hook, f'{_name(hook)}, a {_WORDS[kind]} of "{path or type(module).__name__}"'


def tensor_hooks(model: nn.Module) -> Iterator[tuple[Any, str]]:
    """Yields the hooks of parameters, each with a phrase that names it."""
    for path, parameter in model.named_parameters():
        for hook in (hooks_of_tensor(parameter) or {}).values():
            yield hook, f"{_name(hook)}, a hook of the parameter {path}"


class ToldHooks:
    """Warns of each hook once."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, str], Any] = {}

    def tell(self, model: nn.Module, *, of_tensors: bool = False) -> None:
        """Warns of the hooks that are new since this was last called."""
        found = [*users_hooks(model), *(tensor_hooks(model) if of_tensors else ())]
        new = [(hook, phrase) for hook, phrase in found if (id(hook), phrase) not in self._told]
        self._told |= {(id(hook), phrase): hook for hook, phrase in new}
        if new:
            warnings.warn(
                f"{'; '.join(phrase for _, phrase in new)}: the net does not call hooks while it trains, since it runs "
                "a program that was made from the model once. What a hook changed when the net was compiled is in the "
                "program; what it would change or look at now is not. To look at activities, call the net under "
                "torch.no_grad() or in evaluation mode, which runs the model and its hooks; to change them, do it in "
                "forward, and compile again.",
                UserWarning,
                stacklevel=4,
            )


def _is_torchs(hook: Any) -> bool:
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).partition(".")[0] in _OURS


def _name(hook: Any) -> str:
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    try:
        line = inspect.getsourcelines(hook)[1]
        return f"{name} ({inspect.getsourcefile(hook)}:{line})"
    except (OSError, TypeError):
        return str(name)
