"""Learners that need no step of a net: a forest with a memory, and a way back through a learner."""

import pytest
import torch
from taught import Recorder

from altprop.learners import Forest, Inverse

sklearn_tree = pytest.importorskip("sklearn.tree")


def test_a_window_remembers_samples_of_earlier_steps():
    torch.manual_seed(0)
    x, t = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    forest = Forest(5, 2, keep=1, depth=3, seed=7, window=25)
    for part in (slice(0, 10), slice(10, 20), slice(20, 30)):
        forest.learn(x[part], t[part])
    alone = sklearn_tree.DecisionTreeRegressor(max_depth=3, random_state=9).fit(x[5:].numpy(), t[5:].numpy())
    assert forest.predict(x).numpy() == pytest.approx(alone.predict(x.numpy()), abs=1e-12)
    again = Forest(5, 2, keep=1, depth=3, seed=7, window=25)
    again.load(forest.state())
    for one in (forest, again):
        one.learn(x[:3], t[:3])
    assert torch.equal(forest.predict(x), again.predict(x))


def test_a_step_larger_than_the_window_is_used_whole():
    torch.manual_seed(0)
    x, t = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    short, plain = Forest(5, 2, keep=1, window=4), Forest(5, 2, keep=1)
    for forest in (short, plain):
        forest.learn(x, t)
        forest.learn(x, t)
    assert torch.equal(short.predict(x), plain.predict(x))


def test_errors_cross_by_what_the_way_back_says():
    back = Recorder(4, 6)
    learner = Inverse(Recorder(6, 4), back, sigma=0.5)
    x, t = torch.randn(8, 6, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
    expected = x + (t - learner.predict(x)) @ back.weight.t()
    assert torch.allclose(learner.target(x, t), expected, atol=1e-12)
    learner.learn(x, t)
    read, wanted = back.told[0]
    assert torch.allclose(read, learner.predict(wanted), atol=1e-12)
    assert 0.2 < float((wanted - x).std()) < 0.8
    assert learner.crosses
