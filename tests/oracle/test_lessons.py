"""What learners are told: at the loss's own scale, once a step wherever they stand, and by steps alone."""

import copy

import pytest
import torch
from taught import Recorder, batch, compiled, stack
from torch import nn
from torch.nn import functional

import altprop
from altprop.learners import Forest, Learner, LookupTable, Scikit, Vote

pytestmark = pytest.mark.third


@pytest.mark.parametrize("rule", ["dfa", "bp"])
def test_a_scaled_loss_teaches_the_same(rule):
    """A scaler's factor, or `1 / k` of a loop that accumulates, is no matter of the learner's."""
    told = []
    for factors in ((1.0,), (1024.0,), (0.5, 0.5)):
        learner = Recorder(6, 4) if rule == "dfa" else Crossed(6, 4)
        model = stack(learner)
        net, (x, y) = compiled(model, rule), batch()
        for factor in factors:
            (functional.cross_entropy(net(x), y) * factor).backward()
        net.learn()
        told.append((learner.told[0], model[0].weight.grad))
    for ((given, t), gradient), size in zip(told[1:], (1024.0, 1.0), strict=True):
        torch.testing.assert_close(t[:24], told[0][0][1], rtol=0, atol=1e-12)
        torch.testing.assert_close(given[:24], told[0][0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, size * told[0][1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["es", "snes", "cem", "pso", "ga"])
def test_populations_set_a_target(name):
    """A learner has no parameters that members could differ in; it gets the error that they are judged by."""
    learner = Recorder(6, 4)
    model = stack(learner)
    net, (x, y) = compiled(model, f"{name}(members=20, target='dfa')", optimizer=altprop.optim.SGD(lr=1.0)), batch()
    made = model(x).detach()
    net.step(x, y)
    ((given, t),) = learner.told
    error = (torch.softmax(made, 1) - functional.one_hot(y, 3)) @ net.feedback["3->2"].detach()
    torch.testing.assert_close(t, learner.predict(given) - error, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["ls", "steps_x(k=1, rate=1.0)"])
def test_rules_of_layers_leave_the_learner_to_itself(rule):
    """What a rule asks of a layer's parameters is not asked of a learner; targets cross it in derivatives' place."""
    learner = Linear(6, 4)
    model, plain = stack(learner), stack(nn.Linear(6, 4, bias=False))
    plain[2].weight.data.copy_(learner.weight)
    net, (x, y) = compiled(model, rule), batch()
    net.backward(x, y)
    net.learn()
    assert len(learner.told) == 1
    if rule != "ls":
        functional.cross_entropy(plain(x), y).backward()
        torch.testing.assert_close(model[0].weight.grad, plain[0].weight.grad, rtol=0, atol=1e-10)
        with pytest.raises(altprop.RuleError, match=r"takes an error back through a learner without target\(\)"):
            compiled(stack(Recorder(6, 4)), rule)


class Linear(Recorder):
    """A linear map whose targets for its input are those of backpropagation."""

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - (self.predict(x) - t) @ self.weight.to(x.dtype)


class Crossed(Recorder):
    """One whose targets for its input are not proportional to the error."""

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - torch.tanh((self.predict(x) - t) @ self.weight.to(x.dtype))


class Twice(nn.Module):
    """A learner that stands at two places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above, self.learner = nn.Linear(8, 6), nn.Linear(6, 3), Recorder(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, 8) to (N, 3)."""
        return self.above(torch.tanh(self.learner(torch.tanh(self.learner(torch.tanh(self.below(x)))))))


def test_a_learner_at_two_places_learns_once_a_step():
    model = Twice().double()
    net, (x, y) = compiled(model, optimizer=altprop.optim.SGD(lr=0.1)), batch()
    first = torch.tanh(model.below(x)).detach()
    second = torch.tanh(model.learner(first)).detach()
    net.step(x, y)
    ((given, t),) = model.learner.told
    torch.testing.assert_close(given, torch.cat([second, first]), rtol=0, atol=1e-12)  # as errors are sent
    assert t.shape == (48, 6)


def test_measuring_tells_nothing():
    learner = Recorder(6, 4)
    net, (x, y) = compiled(stack(learner)), batch()
    net.backward(x, y)
    net.measure(x, y, reductions=True, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    net.learn()
    ((given, _),) = learner.told
    assert len(given) == len(x)


def scikit() -> Learner:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    return Scikit(linear.LinearRegression(), 6, 4, fit="window:50")


@pytest.mark.parametrize("make", [lambda: Forest(6, 4), lambda: LookupTable(6, 4, codes=4), scikit])
def test_learners_learn_from_half_precision(make):
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), make(), nn.Linear(4, 3)).bfloat16()
    x, y = batch()
    net = altprop.compile(model, "dfa", example_inputs=(x[:2].bfloat16(),), optimizer=altprop.optim.SGD(lr=0.1))
    before = model(x.bfloat16())
    net.step(x.bfloat16(), y)
    assert model[2](model[:2](x.bfloat16())).dtype == torch.bfloat16
    assert (model(x.bfloat16()) - before).abs().max() > 0


@pytest.mark.parametrize("inside", [True, False])
def test_reductions_count_what_learners_learn(inside):
    """As a step that is really made: of the whole, and of the learner alone."""
    learner = Vote(Recorder(6, 4, rate=0.5), Recorder(6, 4, rate=0.2), step=0.7)
    model, (x, y) = stack(learner), batch()
    net = compiled(model, optimizer=altprop.optim.SGD(lr=0.3) if inside else None)
    own = {} if inside else {"optimizer": torch.optim.SGD(net.parameters(), lr=0.3)}
    measured = {mode: net.measure(x, y, reductions=True, mode=mode, **own) for mode in ("isolated", "cumulative")}
    loss, h = functional.cross_entropy(model(x), y).detach(), torch.tanh(model[0](x)).detach()
    said = learner.predict(h)
    learned = copy.deepcopy(net)
    learned.backward(x, y)
    learned.learn()
    told = learned.model[2].learners[0].told[0][1]
    after = functional.cross_entropy(learned.model(x), y).detach()  # the learner alone has moved
    distances = [(one.predict(h) - told).square().sum() for one in (learner, learned.model[2])]
    row = measured["isolated"].regions["2"]
    assert row.ger == pytest.approx(float(1 - after / loss), abs=1e-12)
    assert row.ler == pytest.approx(float(1 - distances[1] / distances[0]), abs=1e-12)
    assert row.ger != 0
    if inside:
        net.step(x, y)
    else:
        learned.zero_grad()
        learned = copy.deepcopy(net)
        learned.backward(x, y)
        torch.optim.SGD(learned.parameters(), lr=0.3).step()
        learned.learn()
        net = learned
    whole = float(1 - functional.cross_entropy(net.model(x), y).detach() / loss)
    assert measured["cumulative"].reduction == pytest.approx(whole, abs=1e-12)
    assert sum(one.ger for one in measured["cumulative"].regions.values()) == pytest.approx(whole, abs=1e-12)
    assert torch.equal(learner.predict(h), said) != inside
