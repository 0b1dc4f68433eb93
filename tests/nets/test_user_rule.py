"""A rule and an activation that the library does not know: a file of the user's own, and signs."""

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.data import DataSet, load
from altprop.rules.base import RULES

SOURCE = '''
"""Ternary-error direct feedback with learned matrices.

    t(e) = sign(e) where |e| is above a threshold, else 0
    d = t(e_L) B,    e = phi'(h) * d,    dB = e_L^T z
"""

import dataclasses
from typing import ClassVar

import torch

from altprop import Feedback
from altprop.rules import Rule


@dataclasses.dataclass(frozen=True)
class TernaryError(Rule):
    """Attributes:
    strength: of the feedback update.
    threshold: errors below it are not sent.
    """

    name: ClassVar[str] = "ternary"
    summary: ClassVar[str] = "direct feedback of the signs of large errors, with learned matrices"
    source: ClassVar[str] = "this test"

    strength: float = 1.0
    threshold: float = 0.3

    def feedback(self, source, target, adjacent):
        return Feedback("dense", {"scale": 0.1}, learning=self.strength > 0)

    def signal(self, local, incoming):
        (connection,) = incoming
        error = connection.error
        return connection.project(torch.where(error.abs() > self.threshold, torch.sign(error), 0.0))

    def feedback_update(self, local, incoming, d, e):
        return incoming.outer(self.strength * local.z)
'''


@pytest.fixture
def user_rule(tmp_path: Path) -> Iterator[ModuleType]:
    """The user's file, imported as his own module; the registry is put back afterwards."""
    path = tmp_path / "ternary.py"
    path.write_text(SOURCE, "utf-8")
    spec = importlib.util.spec_from_file_location("ternary", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    known = dict(RULES)
    sys.modules["ternary"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ternary"]
    RULES.clear()
    RULES.update(known)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    pytest.importorskip("sklearn")
    return load("digits")


def make_model(activation: type[nn.Module], hidden: int = 64, layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    widths = [64, *[hidden] * layers]
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*parts, nn.Linear(hidden, 10))


def train(net: altprop.LocalNet, data: DataSet, epochs: int) -> float:
    """Trains in batches of 50; returns the accuracy on the test split."""
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(len(data.train), generator=order).split(50):
            part = data.train.take(index)
            net.step(data.inputs(part.images), part.labels)
    net.eval()
    scores = net(data.inputs(data.test.images))
    return float((scores.argmax(1) == data.test.labels).double().mean())


def test_a_rule_in_the_users_own_file_trains(user_rule: ModuleType, digits: DataSet) -> None:
    example = digits.inputs(digits.train.images[:4])
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9, feedback_lr=1e-2)
    net = kept.compile(make_model(nn.Tanh), "ternary", example_inputs=(example,), optimizer=optimizer)
    before = {name: matrix.detach().clone() for name, matrix in net.feedback.items()}
    assert len(before) == 2
    start = [p.detach().clone() for p in net.model.parameters()]
    assert train(net, digits, 12) > 0.85
    assert all(not torch.equal(p, q) for p, q in zip(net.model.parameters(), start, strict=True))
    assert all(not torch.equal(net.feedback[name], matrix) for name, matrix in before.items())


def test_its_updates_are_its_equations(user_rule: ModuleType) -> None:
    model = make_model(nn.Tanh, hidden=8, layers=1).double()
    x, y = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.randint(10, (4,))
    net = kept.compile(model, user_rule.TernaryError(strength=0.5), example_inputs=(x,))
    net.backward(x, y)
    z = torch.tanh(model[1](x.flatten(1)))
    error = torch.softmax(model[3](z), 1) - nn.functional.one_hot(y, 10)
    matrix = net.feedback["3->1"]
    e = (1 - z**2) * ((torch.sign(error) * (error.abs() > 0.3)) @ matrix)
    assert torch.allclose(model[1].weight.grad, e.T @ x.flatten(1) / 4, rtol=0, atol=1e-10)
    assert matrix.grad is not None
    assert torch.allclose(matrix.grad, 0.5 * error.T @ z / 4, rtol=0, atol=1e-10)


def test_it_is_a_rule_like_the_others(user_rule: ModuleType) -> None:
    assert altprop.rules.available()["ternary"].startswith("direct feedback of the signs of large errors")
    rule = altprop.rules.get("ternary(strength=0.0)")
    assert rule == user_rule.TernaryError(strength=0.0)
    assert str(rule) == "ternary(strength=0.0)"
    assert altprop.rules.get(str(rule)) == rule
    x = torch.randn(4, 1, 8, 8)
    net = kept.compile(make_model(nn.Tanh, 8), {"1": rule, "*": "dfa"}, example_inputs=(x,))
    rows = net.explain()
    assert rows["1.weight"].rule == "ternary(strength=0.0)"
    assert rows["3.weight"].rule == "dfa"
    assert not net.feedback["5->1"].requires_grad


def test_a_rule_without_a_name_is_used_as_an_object() -> None:
    class Halved(altprop.rules.Rule):
        """DFA at half strength."""

        def error(self, local, d):  # type: ignore[no-untyped-def]
            return 0.5 * local.phi_vjp(d)

    x, y = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    whole, half = (kept.compile(make_model(nn.Tanh, 8), rule, example_inputs=(x,)) for rule in ("dfa", Halved()))
    # DFA draws its matrices as the base does: same seed, same names.
    whole.backward(x, y)
    half.backward(x, y)
    one, other = (net.model.get_parameter("1.weight").grad for net in (whole, half))
    assert one is not None
    assert other is not None
    assert torch.allclose(0.5 * one, other, atol=1e-7)


def test_signs_train_by_rec_lra(digits: DataSet) -> None:
    example = digits.inputs(digits.train.images[:4])
    net = kept.compile(
        make_model(altprop.nn.Sign),
        "reclra(beta=0.1)",
        plan="direct",
        example_inputs=(example,),
        optimizer=altprop.optim.AdamW(lr=2e-3),
    )
    start = net.model.get_parameter("1.weight").detach().clone()
    assert train(net, digits, 8) > 0.6
    assert not torch.equal(net.model.get_parameter("1.weight"), start)


@pytest.mark.parametrize("rule", ["dfa", "fa", "bp"])
def test_signs_are_refused_where_the_derivative_is_needed(rule: str) -> None:
    x = torch.randn(4, 1, 8, 8)
    message = rf'region "1" has the activation "sign", whose derivative is zero; the rule "{rule}" multiplies by it'
    with pytest.raises(altprop.RuleError, match=message.replace('"1"', '"[13]"')):
        altprop.compile(make_model(altprop.nn.Sign), rule, example_inputs=(x,))
