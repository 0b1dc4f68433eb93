"""A mapping whose values are made when they are first asked for, once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from altprop.ir.alone import alone

T = TypeVar("T")


class OnDemand(Mapping[str, T], Generic[T]):
    """Values by name; the names are known at once."""

    def __init__(self, makers: Mapping[str, Callable[[], T]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, T] = {}

    @staticmethod
    def of(values: Mapping[str, T]) -> "OnDemand[T]":
        """Returns a mapping as one whose values are asked for later."""
        return values if isinstance(values, OnDemand) else OnDemand({name: _constant(v) for name, v in values.items()})

    def __getitem__(self, name: str) -> T:
        if name not in self._made:
            make = self._makers[name]
            with alone():
                if name not in self._made:  # another thread may have made it meanwhile
                    self._made[name] = make()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def has_made(self, name: str) -> bool:
        """Whether the value of a name is there already."""
        return name in self._made

    def joined(self, others: "OnDemand[T]", suffix: str = "") -> "OnDemand[T]":
        """Returns these values and others, whose names get a suffix; of two with the same name the other one's."""
        mine = {name: _item(self, name) for name in self}
        return OnDemand(mine | {f"{name}{suffix}": _item(others, name) for name in others})

    def changed(self, change: Callable[[str, T], T]) -> "OnDemand[T]":
        """Returns the values as a function of their names and of what they are changes them."""
        return OnDemand({name: _changed(self, name, change) for name in self})

    def within(self, context: Callable[[str], AbstractContextManager[object]]) -> "OnDemand[T]":
        """Returns the same values, each made inside a context of its name."""
        return OnDemand({name: _within(self, name, context) for name in self})


def _constant(value: T) -> Callable[[], T]:
    return lambda: value


def _item(values: OnDemand[T], name: str) -> Callable[[], T]:
    return lambda: values[name]


def _changed(values: OnDemand[T], name: str, change: Callable[[str, T], T]) -> Callable[[], T]:
    return lambda: change(name, values[name])


def _within(
    values: OnDemand[T], name: str, context: Callable[[str], AbstractContextManager[object]]
) -> Callable[[], T]:
    def make() -> T:
        with context(name):
            return values[name]

    return make
