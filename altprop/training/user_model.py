"""The caller's own model, named as `file.py:Name`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from altprop.models import ModelError


def is_user_model(name: str) -> bool:
    """Whether a model's name points into a file."""
    file, colon, _ = name.rpartition(":")
    return (bool(colon) and bool(file)) or name.endswith(".py")


def build_user_model(name: str, options: dict[str, Any]) -> nn.Module:
    """Build the module that `file.py:Name` names.

    Args:
        name: a file, a colon, and a class or function in it that returns an nn.Module.
        options: keyword arguments for it.

    Raises:
        ModelError: if the file, the name or the constructor fails.
    """
    file, colon, attribute = name.rpartition(":")
    if not colon or not attribute:
        raise ModelError(f"name the model's class too: {name.rstrip(':')}:Name")
    module = import_file(Path(file).expanduser())
    if not hasattr(module, attribute):
        raise ModelError(f"{file} has no '{attribute}'; it has {_modules_in(module)}")
    make = getattr(module, attribute)
    if not callable(make):
        raise ModelError(
            f"{name} is a value of type {type(make).__name__}; name a class or a function that makes a module"
        )
    return _construct(name, make, options)


def _construct(name: str, make: Any, options: dict[str, Any]) -> nn.Module:
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    try:
        model = make(**options)
    except Exception as error:
        raise ModelError(
            f"{name}({given}) failed: {_describe(error)}; give its arguments with --model-option key=value"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name}({given}) made a value of type {type(model).__name__}, not a torch.nn.Module")
    return model


def import_file(path: Path, what: str = "model") -> ModuleType:
    """Imports a file of the user's.

    Args:
        path: the file.
        what: what it is said to hold.

    Raises:
        ModelError: there is no such file, or it fails.
    """
    if not path.is_file():
        raise ModelError(f"there is no {what} file {path}")
    spec = importlib.util.spec_from_file_location(f"altprop_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered as import does, and with the file's neighbours in reach; taken back if the file fails.
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise ModelError(f"{path} cannot be imported: {_describe(error)}") from error
    finally:
        sys.path.pop(0)
    return module


def _modules_in(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    return ", ".join(names) or "no class of torch.nn.Module"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
