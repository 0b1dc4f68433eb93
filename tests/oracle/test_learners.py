"""Learners: what they are taught, and what crosses them."""

import pytest
import torch
from taught import Recorder, batch, compiled, stack
from torch import nn
from torch.nn import functional

import altprop

pytestmark = pytest.mark.third


class Crossed(Recorder):
    """The same, whose targets for its input are those of backpropagation."""

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - (self.predict(x) - t) @ self.weight.to(x.dtype)


def output_error(model: nn.Module, y: torch.Tensor) -> torch.Tensor:
    made = model(batch(len(y))[0]).detach()
    return torch.softmax(made, 1) - functional.one_hot(y, 3)


def test_the_region_below_moves_as_under_backpropagation():
    """A linear layer as a learner whose targets are exact: the compiler cannot tell it from the layer."""
    learner = Crossed(6, 4)
    model, plain = stack(learner), stack(nn.Linear(6, 4, bias=False))
    plain[2].weight.data.copy_(learner.weight)
    x, y = batch()
    loss = compiled(model, "bp").backward(x, y)
    expected = functional.cross_entropy(plain(x), y)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-12)
    for mine, theirs in ((model[0], plain[0]), (model[3], plain[3])):
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-10)


@pytest.mark.parametrize("rule", ["dfa", "reclra(beta=0.3)", "drtp"])
def test_the_target_is_the_prediction_less_the_error(rule):
    learner = Recorder(6, 4, step=0.7)
    model = stack(learner)
    net = compiled(model, rule)
    x, y = batch()
    net.backward(x, y)
    assert not learner.told
    net.learn()
    ((given, t),) = learner.told
    h = torch.tanh(model[0](x)).detach()
    sent = functional.one_hot(y, 3).double() if rule == "drtp" else output_error(model, y)
    d = sent @ net.feedback["3->2"].detach()
    e = 0.3 * d if rule.startswith("reclra") else d
    assert torch.allclose(given, h, atol=1e-12)
    assert torch.allclose(t, learner.predict(h) - 0.7 * e, atol=1e-10)
    net.learn()
    assert len(learner.told) == 1


@pytest.mark.parametrize("rule", ["tp", "dtp(top='inverse')"])
def test_inverses_cross_a_learner(rule):
    """Targets by inverses need no derivative of what lies between, and the learner is a region like others."""
    learner = Recorder(6, 4)
    model = stack(learner)
    net = compiled(model, rule, optimizer=altprop.optim.SGD(lr=0.1))
    before = [p.detach().clone() for p in model.parameters()]
    net.step(*batch())
    (x, t) = learner.told[0]
    assert x.shape == (24, 6)
    assert t.shape == (24, 4)
    assert (t - learner.predict(x)).abs().max() > 1e-6
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_every_way_to_run_teaches_the_same_lesson():
    lessons = []
    for way in ("step", "backward", "loop"):
        learner = Recorder(6, 4)
        net = compiled(stack(learner), optimizer=altprop.optim.SGD(lr=0.1) if way == "step" else None)
        x, y = batch()
        if way == "step":
            net.step(x, y)
        elif way == "backward":
            net.backward(x, y)
            net.learn()
        else:
            functional.cross_entropy(net(x), y).backward()
            assert not learner.told
            net.learn()
        lessons.append(learner.told)
    for told in lessons:
        assert len(told) == 1
        assert torch.allclose(told[0][0], lessons[0][0][0], atol=1e-12)
        assert torch.allclose(told[0][1], lessons[0][0][1], atol=1e-12)


def test_what_several_calls_told_is_one_batch():
    learner = Recorder(6, 4)
    net = compiled(stack(learner))
    x, y = batch()
    net.backward(x[:10], y[:10])
    net.backward(x[10:], y[10:])
    net.learn()
    other = Recorder(6, 4)
    whole = compiled(stack(other))
    whole.backward(x, y)
    whole.learn()
    assert torch.allclose(learner.told[0][0], other.told[0][0], atol=1e-12)
    assert torch.allclose(learner.told[0][1], other.told[0][1], atol=1e-12)
