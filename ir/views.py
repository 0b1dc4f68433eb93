"""What data classes show of themselves: text, pictures, files.

Such a function reads the class, so the class cannot import it: files would import in a circle. Instead the function is
registered here, and the class's method asks for it by name. `altprop.ir` imports all that register.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_VIEWS: dict[str, Callable[..., Any]] = {}


def view(name: str) -> Callable[[Function], Function]:
    """Registers a function under a name, such as "program as text"."""

    def register(function: Function) -> Function:
        _VIEWS[name] = function
        return function

    return register


def show(name: str, *args: Any) -> Any:
    """Calls the function of a name."""
    return _VIEWS[name](*args)
