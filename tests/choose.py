"""Which cases run every day, where all of them would take long: the same ones each day, and the others marked `full`.

`pairs` is for products of options: every two values of two options meet in some case. With `together=1` every value
is in some case, which does where the options have little to do with each other. `third` is for long lists: a third of
them by a checksum of the name, so that a new name moves no other. `one_each` is for models and rules.
"""

import itertools
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest
from _pytest.mark import ParameterSet

import altprop
from altprop.rules.base import RULES

FULL = pytest.mark.full


def third(names: Iterable[str], always: Collection[str] = ()) -> list[ParameterSet]:
    """All names: a fixed third of them, and those that are named, run every day."""
    return [pytest.param(name, marks=() if name in always or not part(name, 3) else FULL) for name in names]


def choose_thirds(items: Sequence[pytest.Item]) -> None:
    """Marks two thirds of the cases of each test marked `third` as `full`, by a checksum of their names.

    One case stays at least. A test whose cases were chosen otherwise is left alone.
    """
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("third") and hasattr(item, "callspec"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for own in cases.values():
        if len(own) > 1 and not any(item.get_closest_marker("full") for item in own):
            kept = [item for item in own if not part(item.name, 3)] or own[:1]
            for item in own:
                if item not in kept:
                    item.add_marker(FULL)


def one_each(names: Iterable[str], others: Sequence[Any]) -> list[ParameterSet]:
    """The product of names and other values: every day each name meets one of the others, by its checksum."""
    return [
        pytest.param(name, other, marks=() if part(name, len(others)) == place else FULL)
        for name in names
        for place, other in enumerate(others)
    ]


def part(name: str, count: int) -> int:
    """Which of so many parts a name is in; it depends on its letters alone."""
    return zlib.crc32(name.encode()) % count


def pairs(*, together: int = 2, **options: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrizes a test by the product of its options; cases that no pair needs are marked `full`.

    Args:
        together: how many values of as many options meet in some case: two, or each by itself.
        options: values by name; one may be a `pytest.param` of one value, which gives it a name.
    """
    values = [[named(value) for value in given] for given in options.values()]
    needed = covering([len(given) for given in values], together)
    cases = []
    for places in itertools.product(*(range(len(given)) for given in values)):
        chosen = [given[place] for given, place in zip(values, places, strict=True)]
        marks = () if places in needed else FULL
        name = "-".join(str(one.id) for one in chosen)
        cases.append(pytest.param(*(one.values[0] for one in chosen), id=name, marks=marks))
    return pytest.mark.parametrize(tuple(options), cases)


def named(value: Any) -> ParameterSet:
    """The value as a parameter with a name."""
    if isinstance(value, ParameterSet):
        return value
    name = value.__name__ if isinstance(value, type) else str(value)
    return pytest.param(value, id=name)


def covering(sizes: Sequence[int], together: int = 2) -> set[tuple[int, ...]]:
    """Few places of a product in which every two values of two options meet, or so many; with fewer options, all.

    Greedy: the case that brings most new pairs comes next, the first of equals.
    """
    product = list(itertools.product(*map(range, sizes)))
    if len(sizes) < together:
        return set(product)
    left = {met for places in product for met in meetings(places, together)}
    chosen: set[tuple[int, ...]] = set()
    while left:
        best = max(product, key=lambda places: len(left.intersection(meetings(places, together))))
        chosen.add(best)
        left.difference_update(meetings(best, together))
    return chosen


def meetings(places: Sequence[int], together: int) -> list[tuple[tuple[int, int], ...]]:
    """Which values of which options meet in a case, so many at a time."""
    return list(itertools.combinations(enumerate(places), together))


def rules_of_ours() -> list[str]:
    """Names of the rules that altprop lists, without those that a test has added."""
    return [name for name in altprop.rules.available() if RULES[name].__module__.startswith("altprop.")]
