"""States that grow from round to round, where they should settle, are told in a sentence with a way out."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.rules.about import About, remedy_of
from altprop.runtime.diverging import SELDOM, Diverging

X, Y = torch.ones(4, 6), torch.tensor([0, 1, 2, 0])


def unbounded(rule: str) -> Any:
    """A net without activations, whose large weights make states grow in each round."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].weight.mul_(1e3)
    return kept.compile(model, rule, example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))


def steps(net: Any) -> None:
    for _ in range(4):
        net.step(X, Y)


def backward_passes(net: Any) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        net.backward(X, Y)
        optimizer.step()


def loops(net: Any) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        optimizer.step()


@pytest.mark.parametrize("rule", ["ep", "pc(rate=3.0)"])
def test_a_rule_that_diverges_says_so_once_and_names_a_way_out(rule: str) -> None:
    net = unbounded(rule)
    rate = altprop.rules.get(rule).rate
    trained: list[Callable[[Any], None]] = [steps, backward_passes, loops]
    for train in trained:
        with pytest.warns(UserWarning, match=f"is NaN. In the rounds.*smaller rate= than {rate}") as said:
            train(copy.deepcopy(net))
        assert len([one for one in said if "NaN" in str(one.message)]) == 1


@pytest.mark.parametrize("runtime", ["serial", "threads"])
def test_a_schedule_says_so_too(runtime: str) -> None:
    net = copy.deepcopy(unbounded("pc(rate=3.0)"))
    running = net.schedule(devices=2, batch=4, microbatches=1).runtime(runtime)
    with pytest.warns(UserWarning, match="is NaN. In the rounds.*smaller rate=") as said:
        steps(running)
    assert [one.filename for one in said if "NaN" in str(one.message)] == [__file__]


def test_a_rule_that_does_not_settle_says_nothing() -> None:
    net = unbounded("bp")
    with torch.no_grad():
        net.model[0].weight.fill_(float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.step(X, Y).isnan()


def test_rules_of_ones_own_have_a_remedy_too() -> None:
    class Own(type(altprop.rules.get("pc"))):  # type: ignore[misc]
        about = About(name="")

    assert 'rule "Own" states may have grown' in remedy_of(Own())
    assert remedy_of(Own()).endswith("give it smaller steps, or fewer rounds")


def test_infinite_scores_are_a_models_own_and_accelerators_are_looked_at_seldom() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Diverging().look("remedy", torch.tensor([0.0, float("-inf")]))
        far = Diverging()
        for _ in range(SELDOM - 1):
            far.look("remedy", torch.empty(2, device="meta"))
    assert not far.told
