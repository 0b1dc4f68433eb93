"""Learners: where they stand, and what of the net they leave as it was."""

import copy
import itertools

import kept
import numpy as np
import pytest
import torch
from taught import Recorder, batch, compiled, stack
from torch import nn
from torch.nn import functional

import altprop
from altprop.learners import (
    Boosted,
    Forest,
    Inverse,
    Learner,
    LookupTable,
    Neighbours,
    Rolling,
    Scikit,
    Search,
    Surrogate,
    Vote,
)

pytestmark = pytest.mark.third

sklearn_tree = pytest.importorskip("sklearn.tree", reason="trees are fitted by scikit-learn, which is not installed")


class Towers(nn.Module):
    """Two learners side by side, one in a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = nn.Linear(8, 6), nn.Linear(6, 3)
        self.left, self.right = Recorder(6, 6), Recorder(6, 6, rate=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.below(x))
        return self.above(torch.relu(h + self.left(h) + self.right(h)))


PLACES = {
    "first": lambda: nn.Sequential(Recorder(8, 6), nn.Tanh(), nn.Linear(6, 3)),
    "last": lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), Recorder(6, 3)),
    "alone": lambda: nn.Sequential(Recorder(8, 3)),
    "two in a row": lambda: stack(Recorder(6, 5), Recorder(5, 4)),
    "behind and before norms": lambda: stack(nn.BatchNorm1d(6), Recorder(6, 4), nn.BatchNorm1d(4)),
    "towers and residual": Towers,
}


STRAIGHT = list(itertools.product(("dfa", "reclra", "drtp"), PLACES))
BY_INVERSES = [
    *itertools.product(("dtp(top='inverse')", "tp"), ("first", "two in a row")),
    ("dtp(top='inverse')", "last"),
]


@pytest.mark.parametrize(
    ("rule", "place"),
    [*itertools.product(("dfa", "reclra", "drtp"), PLACES), *BY_INVERSES, ("dtp(top='inverse')", "last")],
)
def test_learners_stand_anywhere(rule, place):
    torch.manual_seed(0)
    model = PLACES[place]().double()
    net = compiled(model, rule, optimizer=altprop.optim.SGD(lr=0.1))
    learners = [module for module in model.modules() if isinstance(module, Learner)]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert torch.equal(net(batch()[0]).detach(), model(batch()[0]).detach())
    net.step(*batch())
    assert [len(learner.told) for learner in learners] == [1] * len(learners)
    for name, p in model.named_parameters():
        assert not torch.equal(p, before[name]), name
    rows = [row for row in net.explain().rows if row.how == "learner"]
    assert all(row.rule in ("bp", rule) for row in rows)
    assert len(rows) == len(learners)


@pytest.mark.parametrize(
    ("rule", "place", "sentence"),
    [
        ("tp", "last", r"connections\[0\].*a learner \(Recorder\) without target\(\)"),
        ("tp", "towers and residual", r"connection .*: predict_1 does not depend on predict.*such as dfa"),
    ],
)
def test_what_no_inverse_leads_to_is_refused(rule, place, sentence):
    with pytest.raises(altprop.CompileError, match=sentence):
        compiled(PLACES[place]().double(), rule)


def test_regions_above_move_as_if_the_learners_output_were_the_input():
    learner = Recorder(8, 5)
    torch.manual_seed(0)
    above = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    whole, alone = nn.Sequential(learner, *copy.deepcopy(above)), nn.Sequential(nn.Identity(), *above)
    x, y = batch()
    nets = [compiled(whole, "dfa"), compiled(alone, "dfa", example_inputs=(learner.predict(x[:2]),))]
    nets[0].backward(x, y)
    nets[1].backward(learner.predict(x), y)
    for p, q in zip(whole.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-10)


class ToldForest(Forest):
    """A forest that keeps what it was told last."""

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        self.last = (x, t)
        super().learn(x, t)


def test_a_forest_fits_the_trees_of_scikit_learn():
    forest = ToldForest(6, 4, keep=3, depth=4, step=0.5, seed=7)
    model = stack(forest)
    net = compiled(model, optimizer=altprop.optim.SGD(lr=0.05))
    x, y = batch(60)
    for count in range(5):
        h = torch.tanh(model[0](x)).detach()
        z, e = forest.predict(h), output_error_of(model, x, y) @ net.feedback["3->2"].detach()
        net.step(x, y)
        given, t = forest.last
        assert torch.allclose(given, h, atol=1e-12)
        assert torch.allclose(t, z - 0.5 * e, atol=1e-10)
        fitted = sklearn_tree.DecisionTreeRegressor(max_depth=4, random_state=7 + count).fit(given, t)
        theirs, mine = fitted.tree_, forest.trees[-1]
        assert mine["feature"].tolist() == theirs.feature.tolist()
        assert mine["left"].tolist() == theirs.children_left.tolist()
        assert mine["right"].tolist() == theirs.children_right.tolist()
        assert mine["threshold"].tolist() == theirs.threshold.tolist()
        assert mine["value"].tolist() == theirs.value[:, :, 0].tolist()
    assert len(forest.trees) == 3
    np.testing.assert_allclose(answer_of(forest, h), fitted.predict(h.numpy()), atol=1e-12)


def output_error_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.softmax(model(x).detach(), 1) - functional.one_hot(y, 3)


def answer_of(forest: Forest, h: torch.Tensor) -> np.ndarray:
    """What the newest tree alone says."""
    alone = copy.deepcopy(forest)
    alone.trees = alone.trees[-1:]
    return alone.predict(h).numpy()


def make_scikit() -> Learner:
    from sklearn.linear_model import SGDRegressor

    return Scikit(SGDRegressor(random_state=0), 6, 4, trusted=True)


SHIPPED = {
    "forest": lambda: Forest(6, 4, keep=2),
    "boosted": lambda: Boosted(6, 4, keep=2),
    "neighbours": lambda: Neighbours(6, 4, count=2, keep=30),
    "table": lambda: LookupTable(6, 4, codes=8),
    "scikit": make_scikit,
    "rolling": lambda: Rolling(Forest(6, 4, keep=1), keep=2),
    "rolling votes": lambda: Rolling(Vote(Forest(6, 4, keep=2), LookupTable(6, 4, codes=8)), keep=2),
    "rolling surrogates": lambda: Rolling(Surrogate(Forest(6, 4, keep=2)), keep=2),
    "vote": lambda: Vote(Forest(6, 4, keep=2), LookupTable(6, 4, codes=8)),
    "surrogate": lambda: Surrogate(Forest(6, 4, keep=2)),
    "inverse": lambda: Inverse(Forest(6, 4, keep=2, window=30), LookupTable(4, 6, codes=8)),
    "search": lambda: Search(Forest(6, 4, keep=2), members=2),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_next_step_after_a_reload_is_the_same_to_the_bit(name, tmp_path):
    rule = "bp" if name in ("surrogate", "search", "neighbours", "table") else "dfa"
    net, other = (compiled(stack(SHIPPED[name]()), rule, optimizer=altprop.optim.Adam(lr=0.01)) for _ in range(2))
    for _ in range(3):
        net.step(*batch())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    for _ in range(2):
        assert float(net.step(*batch())) == float(other.step(*batch()))
    first, second = net.state_dict(), other.state_dict()
    assert list(first) == list(second)
    if name != "scikit":  # a pickle has no form of its own
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_copy_learns_for_itself(name):
    net = compiled(stack(SHIPPED[name]()), "dfa", optimizer=altprop.optim.SGD(lr=0.1))
    net.step(*batch())
    other = copy.deepcopy(net)
    before = net.model(batch()[0])
    other.step(*batch())
    assert torch.equal(net.model(batch()[0]), before)
    assert not torch.equal(other.model(batch()[0]), before)


def test_measuring_alters_no_learner():
    net = compiled(stack(Vote(Forest(6, 4, keep=2), Forest(6, 4, seed=1))), optimizer=altprop.optim.SGD(lr=0.1))
    net.step(*batch())
    state = {key: value.clone() for key, value in net.state_dict().items()}
    measured = net.measure(*batch(), reductions=True)
    assert list(measured.regions) == ["0", "2", "3"]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert list(net.state_dict()) == list(state)
    net.step(*batch())
    assert len(net.model[2].learners[0].trees) == 2


def test_learners_learn_a_task():
    """Trees in the middle of a net, on what a single layer could not separate."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator, dtype=torch.float64)
    y = ((x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 1).long()).clamp_max(2)
    net = compiled(stack(Forest(6, 4, keep=20, step=2.0)), optimizer=altprop.optim.Adam(lr=0.01))
    losses = [float(net.step(x, y)) for _ in range(60)]
    assert losses[-1] < 0.65 * losses[0]


def test_estimators_of_scikit_learn():
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsRegressor

    x, y = batch(60)
    t = functional.one_hot(y, 3).double()
    window = Scikit(KNeighborsRegressor(1), 8, 3, fit="window:40")
    window.learn(x[:30], t[:30])
    window.learn(x[30:], t[30:])
    assert len(window.seen) == 40
    assert torch.equal(window.predict(x[20:]), t[20:])
    bayes = Scikit(GaussianNB(), 8, 3)
    assert torch.allclose(bayes.predict(x), torch.full((60, 3), 1 / 3, dtype=torch.float64))
    bayes.learn(x, t)
    assert torch.allclose(bayes.predict(x).sum(1), torch.ones(60, dtype=torch.float64))
    signs = Scikit(SGDClassifier(random_state=0), 8, 3)
    signs.learn(x, t)
    assert set(signs.predict(x).unique().tolist()) <= {0.0, 1.0}
    warm = Scikit(RandomForestRegressor(3, warm_start=True, random_state=0), 8, 1, fit="warm")
    warm.learn(x, t[:, :1])
    warm.learn(x, t[:, :1])
    assert len(warm.estimator.estimators_) == 6
    for fit, estimator, sentence in (
        ("partial", KNeighborsRegressor(), "has no partial_fit"),
        ("warm", GaussianNB(), "adds estimators to one with warm_start"),
        ("window", GaussianNB(), "choose"),
    ):
        with pytest.raises(altprop.LearnerError, match=sentence):
            Scikit(estimator, 8, 3, fit=fit)


def test_an_estimator_is_saved_only_if_it_is_trusted():
    from sklearn.naive_bayes import GaussianNB

    trusted = nn.Sequential(Scikit(GaussianNB(), 8, 3, trusted=True))
    plain = nn.Sequential(Scikit(GaussianNB(), 8, 3))
    with pytest.raises(altprop.LearnerError, match=r"Scikit\(GaussianNB\): an estimator has no form in tensors"):
        plain.state_dict()
    with pytest.raises(RuntimeError, match="say trusted=True to load it"):
        plain.load_state_dict(trusted.state_dict())


def test_refusals():
    with pytest.raises(altprop.PlanError, match=r'"2" is a learner \(Recorder\) without target\(\), so that no error'):
        compiled(stack(Recorder(6, 4)), "bp")
    with pytest.raises(altprop.CompileError, match=r'"2" is a learner .* this backend cannot hold it'):
        compiled(stack(Recorder(6, 4)), backend="cudagraphs", optimizer=altprop.optim.SGD(lr=0.1))
    net = compiled(stack(Recorder(6, 4)), optimizer=altprop.optim.SGD(lr=0.1))
    with pytest.raises(altprop.ScheduleError, match="a schedule cannot hold it"):
        net.schedule(devices=2)
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(altprop.ExportError, match=f"a {suffix} file of a step cannot hold it"):
            net.export(f"step{suffix}")

    class Wrong(Recorder):
        def predict(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(altprop.LearnerError, match=r"Wrong.predict returned \(2, 6\) in the place of \(2, 4\)"):
        stack(Wrong(6, 4))(batch()[0][:2])
    with pytest.raises(altprop.LearnerError, match="it is above 0"):
        Recorder(6, 4, step=0)


def test_a_frozen_learner_predicts_and_learns_nothing():
    learner = Recorder(6, 4)
    net = compiled(stack(learner), {"2": "frozen", "*": "dfa"}, optimizer=altprop.optim.SGD(lr=0.1))
    net.step(*batch())
    assert not learner.told
    assert net.explain()["2 (Recorder)"].how == "frozen"


def test_it_is_seen_in_texts_and_drawings():
    net = compiled(stack(Forest(6, 4)))
    assert "learner Forest" in str(net.graph)
    assert net.graph.to_networkx().nodes["2"]["learner"] == "Forest"
    assert "predict" in str(net.graph.programs["backward"])


def test_a_net_without_learners_is_as_it_was():
    torch.manual_seed(0)
    net = kept.compile(stack(nn.Linear(6, 4)), rule="dfa", example_inputs=(batch()[0][:2],))
    assert all(slot.kind != "lesson" for program in net.graph.programs.values() for slot in program.outputs)
    net.learn()
