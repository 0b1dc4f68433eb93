"""A forest with a memory, a way back through a learner, and files of a forward that hold what learners learned."""

import pytest
import torch
from taught import Recorder
from torch import nn

import altprop
from altprop.learners import Boosted, Forest, Inverse, LookupTable, Neighbours, Rolling, Scikit, Vote

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


@pytest.mark.parametrize("kind", [Forest, Boosted])
def test_a_share_of_the_features_is_that_of_scikit_learn(kind):
    torch.manual_seed(0)
    x, t = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    learner = kind(8, 2, keep=1, depth=3, seed=7, features=0.25)
    learner.learn(x, t)
    alone = sklearn_tree.DecisionTreeRegressor(max_depth=3, random_state=7, max_features=2).fit(x.numpy(), t.numpy())
    assert learner.trees[0]["feature"].tolist() == alone.tree_.feature.tolist()
    with pytest.raises(altprop.LearnerError, match=r"features=1\.5; keep is 1 or more, features a share above 0"):
        kind(8, 2, features=1.5)


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


LEARNERS = {
    "forest": lambda: Forest(6, 4, keep=3, depth=5),
    "table": lambda: LookupTable(6, 4, codes=8),
    "neighbours": lambda: Neighbours(6, 4, count=3, keep=50),
    "vote": lambda: Vote(Forest(6, 4, keep=2), Forest(6, 4, seed=3)),
}


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_forward_file_holds_what_a_learner_has_learned(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), LEARNERS[kind](), nn.Linear(4, 3))
    net = altprop.compile(model, "dfa", example_inputs=(torch.randn(4, 8),), optimizer=altprop.optim.SGD(lr=0.1))
    for _ in range(2):
        net.step(torch.randn(30, 8), torch.randint(3, (30,)))
    session = onnxruntime.InferenceSession(str(net.export(tmp_path / "forward.onnx", what="forward")))
    x = torch.randn(7, 8)
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert made == pytest.approx(net.eval()(x).detach().numpy(), abs=1e-5)


@pytest.mark.parametrize(("around", "named"), [(lambda one: one, "Scikit"), (Rolling, "Rolling")])
def test_an_estimator_goes_into_no_file(tmp_path, around, named):
    linear = pytest.importorskip("sklearn.linear_model")
    learner = around(Scikit(linear.SGDRegressor(), 6, 4, trusted=True))
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), learner, nn.Linear(4, 3))
    net = altprop.compile(model, "dfa", example_inputs=(torch.randn(4, 8),), optimizer=altprop.optim.SGD(lr=0.1))
    net.step(torch.randn(30, 8), torch.randint(3, (30,)))
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(altprop.ExportError, match=rf"2.* \({named}\)"):
            net.export(tmp_path / f"forward{suffix}", what="forward")
