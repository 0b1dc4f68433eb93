"""What runs every day: every pair of options, and a third of long lists, the same each day."""

import itertools

import pytest
from choose import covering, in_third, pairs, third
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_every_two_values_meet(sizes: list[int]) -> None:
    chosen = covering(sizes)
    for (i, one), (j, other) in itertools.combinations(enumerate(sizes), 2):
        assert {(places[i], places[j]) for places in chosen} == set(itertools.product(range(one), range(other)))
    assert chosen <= set(itertools.product(*map(range, sizes)))
    assert covering(sizes) == chosen


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


def test_thirds_are_all_and_do_not_overlap() -> None:
    names = [f"model {number}" for number in range(300)]
    parts = [[case.values[0] for case in third(names, part=part) if not case.marks] for part in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(70 < len(part) < 130 for part in parts)
    assert [case.values[0] for case in third(names)] == names


def test_a_third_is_the_same_for_ever() -> None:
    names = ("mlp_tanh", "resnet18", "gru", "t5")
    assert [[name for name in names if in_third(name, part)] for part in range(3)] == [
        ["mlp_tanh", "gru"],
        ["resnet18", "t5"],
        [],
    ]
    assert [case.values[0] for case in third(names, always=["t5"]) if not case.marks] == ["mlp_tanh", "gru", "t5"]
