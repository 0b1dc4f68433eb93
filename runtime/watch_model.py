"""Watches a model between calls: its modules, parameters and buffers, their modes and forms.

Programs find tensors by name in the modules that they were bound to, and were made for one *mode*: which modules train,
which parameters learn, in which dtype and shape. A mode is made anew only where something is not what it was.
"""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from altprop.ir.alone import alone
from altprop.ir.errors import CompileError
from altprop.ir.layouts import FORMATS, is_channels_last
from altprop.ir.torch_private import HOOK_TABLES, hooks_of_tensor, own_buffers, own_modules, own_parameters
from altprop.runtime.guards import Still
from altprop.runtime.hooks import torchs_hooks, users_hooks

_grad, _dtype, _shape = map(operator.attrgetter, ("requires_grad", "dtype", "shape"))


class Mode(NamedTuple):
    """What must agree for a program to run.

    Attributes:
        form: classes of the modules, the shapes of their tensors, and which of these are one.
        grads: whether each parameter requires grad.
        dtypes: of the parameters.
        device: of the first parameter.
        training: whether each module is in training mode.
        cast: dtype of autocast, or None.
    """

    form: Any
    grads: tuple[bool, ...]
    dtypes: tuple[torch.dtype, ...]
    device: torch.device | None
    training: tuple[bool, ...]
    cast: torch.dtype | None


class Watch:
    """Knows a model's present mode.

    Attributes:
        still: whether the model's objects are those of the last look.
        hooks: the user's hooks, by module, kind and identity.
        looks: how often the model was looked at.
        turns: how often modules were found replaced; what was bound to them before is to be bound anew.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.looks = self.turns = 0
        self._watched: list[nn.Module] = []
        self._look()
        self._owners = self._find_owners()

    def unchanged(self) -> bool:
        """Whether nothing that the mode is made of is another than at the last look."""
        return self.still() and self.settings_unchanged() and self.shapes_unchanged()

    def shapes_unchanged(self) -> bool:
        """Whether parameters have the shapes and dtypes of the last look, which `.data` may change in place."""
        parameters = self._tensors
        return list(map(_shape, parameters)) == self._shapes and list(map(_dtype, parameters)) == list(self._dtypes)

    def settings_unchanged(self) -> bool:
        """Whether what does not stand in a table is unchanged: no new hooks, and the settings of parameters.

        Of the memory of parameters it looks at two alone, which `model.to(...)` changes with all others: the first, and
        the first filter of images.
        """
        parameters, first, image = self._tensors, self._first, self._image
        return (
            not any(self._empty)
            and list(map(_grad, parameters)) == self._wanted_grads
            and not any(map(hooks_of_tensor, parameters))
            and (first is None or (first.dtype is self._dtypes[0] and first.device == self._device))
            and (image is None or image.stride() == self._image_stride)
        )

    def mode(self, device_type: str) -> Mode:
        """Returns the present mode.

        Raises:
            CompileError: parameters were replaced by tensors that are none.
        """
        self.refresh()
        return self.present_mode(device_type)

    def refresh(self) -> bool:
        """Looks at the model again where something is not what it was; returns whether it did.

        A thread that compiles the model has hooks and fake parameters in it meanwhile, so others wait before they look.
        """
        if self.unchanged():
            return False
        with alone():
            if self.unchanged():
                return False
            self._look()
        return True

    def present_mode(self, device_type: str) -> Mode:
        """Returns the mode as it was at the last look."""
        cast = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
        return Mode(self._form, self._grads, self._dtypes, self._device, self._training, cast)

    def replaced(self) -> list[str]:
        """Returns the names of the parameters that came with another module since this was last asked."""
        before, self._owners = self._owners, self._find_owners()
        return [
            name
            for name, (module, parameter) in self._owners.items()
            if name in before and module is not before[name][0] and parameter is not before[name][1]
        ]

    def _find_owners(self) -> dict[str, tuple[nn.Module, Any]]:
        return {
            f"{path}.{name}" if path else name: (module, parameter)
            for path, module in self._model.named_modules()
            for name, parameter in own_parameters(module).items()
        }

    def _look(self) -> None:
        self.looks += 1
        named = list(self._model.named_modules())
        modules = [module for _, module in named]
        self._refuse_strangers(named)
        if [*map(id, modules)] != [*map(id, self._watched)]:
            self.turns += 1
        self._watched = modules
        self._tensors = [p for module in modules for p in own_parameters(module).values() if p is not None]
        hooks = [getattr(module, kind) for module in modules for kind in HOOK_TABLES]
        self._empty = [table for table in hooks if not table]
        filled = [table for table in hooks if table]
        self.still = Still(_places(modules, filled), [*map(vars, modules), *filled, *_parents(modules)])
        self._grads, self._dtypes = tuple(map(_grad, self._tensors)), tuple(map(_dtype, self._tensors))
        self._wanted_grads = list(self._grads)
        self._shapes = list(map(_shape, self._tensors))
        self._first = self._tensors[0] if self._tensors else None
        self._image = next((one for one in self._tensors if one.dim() in FORMATS), None)
        self._image_stride = None if self._image is None else self._image.stride()
        self._device = None if self._first is None else self._first.device
        self._training = tuple(module.training for module in modules)
        self._form = (*(_form(path, module) for path, module in named), _ties(modules))
        self.hooks = {(id(hook), phrase): hook for hook, phrase in users_hooks(self._model)} if filled else {}

    def _refuse_strangers(self, named: Iterable[tuple[str, nn.Module]]) -> None:
        for path, module in named:
            for name, value in own_parameters(module).items():
                if value is not None and not isinstance(value, nn.Parameter):
                    raise CompileError(
                        f"{path + '.' if path else ''}{name} is no parameter now but a tensor, as where "
                        "torch.func.functional_call or torch.func.grad puts others in the parameters' place. A program "
                        "moves the net's own parameters and knows no derivative by others: call net.model in the "
                        "net's place, which autograd differentiates."
                    )


def _places(modules: Iterable[nn.Module], hooks: Iterable[Any]) -> Iterator[tuple[tuple[Any, Any], Any]]:
    for module in modules:
        own = vars(module)
        yield (own, "training"), own["training"]
        for table in (own_modules(module), own_parameters(module), own_buffers(module)):
            yield from (((table, name), value) for name, value in table.items() if value is not None)
    for kind in dict.fromkeys(type(module) for module in modules):
        found = next(base for base in kind.__mro__ if "forward" in vars(base))
        yield (vars(found), "forward"), vars(found)["forward"]
    for table in hooks:
        yield from (((table, key), hook) for key, hook in table.items())


def _parents(modules: Iterable[nn.Module]) -> list[Any]:
    return [own_modules(module) for module in modules if own_modules(module)]


def _ties(modules: Iterable[nn.Module]) -> tuple[int, ...]:
    """For each tensor of the modules, the place of the first that is the same one; a program adds up their updates."""
    tables = (table for module in modules for table in (own_parameters(module), own_buffers(module)))
    places: dict[int, int] = {}
    tensors = (tensor for table in tables for tensor in table.values() if tensor is not None)
    return tuple(places.setdefault(id(tensor), place) for place, tensor in enumerate(tensors))


def _form(path: str, module: nn.Module) -> Any:
    """What of a module decides which program runs: two with the same form differ in numbers alone."""
    forward = vars(module).get("forward") or type(module).forward
    own = [(name, p) for name, p in own_parameters(module).items() if p is not None]
    parameters = tuple((name, tuple(p.shape), is_channels_last(p)) for name, p in own)
    buffers = tuple((name, tuple(b.shape), b.dtype) for name, b in own_buffers(module).items() if b is not None)
    return path, type(module), forward, parameters, buffers, torchs_hooks(module)
