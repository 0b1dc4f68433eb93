"""The signature of a net's forward: that of its model, as tools that choose inputs by name want to read it."""

import inspect
from collections.abc import Callable
from typing import Any


class SignatureOfModel:
    """A method of a net; `inspect.signature` of it, looked up in a net, is that of the model's forward.

    transformers' Trainer, for one, hands to a model the columns of a data set that its forward has names for.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, net: Any, owner: Any = None) -> Any:
        """The method of a net; of the class, the function."""
        return self.function if net is None else _Method(self.function, net)


class _Method:
    """A method bound to a net."""

    def __init__(self, function: Callable[..., Any], net: Any) -> None:
        self.__func__, self.__self__ = function, net
        self.__doc__, self.__name__ = function.__doc__, function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__self__.model.forward)
