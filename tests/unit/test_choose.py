"""What runs every day: every pair of options, and a third of long lists, the same each day."""

import itertools

import pytest
from choose import covering, one_each, pairs, part, third
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=50)
def test_every_two_values_meet(sizes: list[int]) -> None:
    chosen = covering(sizes)
    for (i, one), (j, other) in itertools.combinations(enumerate(sizes), 2):
        assert {(places[i], places[j]) for places in chosen} == set(itertools.product(range(one), range(other)))
    assert chosen <= set(itertools.product(*map(range, sizes)))
    assert covering(sizes) == chosen


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=50)
def test_every_value_is_in_some_case(sizes: list[int]) -> None:
    chosen = covering(sizes, together=1)
    assert len(chosen) == max(sizes)
    assert all({places[i] for places in chosen} == set(range(size)) for i, size in enumerate(sizes))


def test_pairs_are_fewer_than_the_product() -> None:
    cases = pairs(rule=("fa", "dfa"), bias=(True, False), loss=[pytest.param(1, id="one"), pytest.param(2, id="two")])
    names, found = cases.args
    assert names == ("rule", "bias", "loss")
    assert len({case.id for case in found}) == len(found) == 8
    assert [case.id for case in found if not case.marks] == [
        "fa-True-one",
        "fa-False-two",
        "dfa-True-two",
        "dfa-False-one",
    ]
    assert all(case.marks == (pytest.mark.full,) for case in found[1:2])


def test_a_third_is_the_same_for_ever() -> None:
    names = ("mlp_tanh", "resnet18", "gru", "t5")
    assert [part(name, 3) for name in names] == [0, 1, 0, 1]
    cases = third(names, always=["t5"])
    assert [case.values[0] for case in cases] == list(names)
    assert [case.values[0] for case in cases if not case.marks] == ["mlp_tanh", "gru", "t5"]


def test_parts_are_alike_in_size() -> None:
    parts = [part(f"model {number}", 3) for number in range(300)]
    assert all(70 < parts.count(which) < 130 for which in range(3))


def test_each_name_meets_one_of_the_others() -> None:
    names = [f"model {number}" for number in range(20)]
    cases = one_each(names, ("fa", "dfa", "reclra"))
    assert [case.values for case in cases] == list(itertools.product(names, ("fa", "dfa", "reclra")))
    assert [case.values[0] for case in cases if not case.marks] == names
    assert {case.values[1] for case in cases if not case.marks} == {"fa", "dfa", "reclra"}
