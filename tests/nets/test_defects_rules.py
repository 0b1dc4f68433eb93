"""Mistakes in a rule of one's own: each is one sentence that names the line, the shape or the option."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import altprop
from altprop.rules import Rule
from altprop.rules.base import RULES

known = dict(RULES)


@dataclasses.dataclass(frozen=True)
class Chooses(Rule):
    name: ClassVar[str] = "chooses"

    def error(self, local, d):  # type: ignore[no-untyped-def]
        if d.norm() > 1:
            d = d / d.norm()
        return d


@dataclasses.dataclass(frozen=True)
class Sums(Rule):
    name: ClassVar[str] = "sums"

    def error(self, local, d):  # type: ignore[no-untyped-def]
        return d.sum(1)


@dataclasses.dataclass(frozen=True)
class Forgets(Rule):
    name: ClassVar[str] = "forgets"

    def error(self, local, d):  # type: ignore[no-untyped-def]
        d.sum(1)


@dataclasses.dataclass(frozen=True)
class Transposes(Rule):
    name: ClassVar[str] = "transposes"

    def update(self, local, e):  # type: ignore[no-untyped-def]
        return {name: move.mT for name, move in local.parameter_vjp(e).items() if move.dim() == 2}


@dataclasses.dataclass(frozen=True)
class Misnames(Rule):
    name: ClassVar[str] = "misnames"

    def update(self, local, e):  # type: ignore[no-untyped-def]
        return {f"my.{name}": move for name, move in local.parameter_vjp(e).items()}


class Undecorated(Rule):
    name: ClassVar[str] = "undecorated"
    strength: float = 2.0

    def error(self, local, d):  # type: ignore[no-untyped-def]
        return self.strength * local.phi_vjp(d)


@dataclasses.dataclass(frozen=True)
class Draws(Rule):
    name: ClassVar[str] = "draws"
    how: str = "randn_like"

    def error(self, local, d):  # type: ignore[no-untyped-def]
        e = local.phi_vjp(d)
        return e + torch.randn_like(e) if self.how == "randn_like" else e * torch.rand_like(e)


mine = {name: RULES[name] for name in RULES if name not in known}
RULES.clear()
RULES.update(known)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    RULES.update(mine)
    yield
    for name in mine:
        del RULES[name]


X, Y = torch.randn(4, 8), torch.tensor([0, 1, 2, 1])


def compiled(rule: Any) -> altprop.LocalNet:
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    return altprop.compile(model, rule, example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("chooses", r'region "0" at .*test_defects_rules\.py:\d+ \("if d\.norm\(\) > 1:"\): .* use torch\.where'),
        ("sums", r"its error returned a tensor of shape \(N\); the pre-activation is a tensor of shape \(N, 6\)"),
        ("forgets", r"its error returned a value of the type NoneType; the pre-activation is a tensor"),
        ("transposes", r'its update of "0\.weight", a tensor of shape \(6, 8\), is a tensor of shape \(8, 6\)'),
        ("misnames", r'its update moves "my\.0\.weight"; the region has 0\.weight, 0\.bias'),
        ("undecorated(strength=3.0)", r"its class Undecorated is no dataclass of its own. Put @dataclasses\.dataclass"),
        ("draws(how='rand')", r'draws by rand_like on region "0": a rule draws by torch\.randn_like'),
        ("reclra(beta=-1)", r"reclra: beta=-1; it is above 0"),
        ("reclra(kappa={'*': -1.0})", r"reclra: kappa=.*; it is 0 or more"),
        ("kp(weight_decay=-0.1)", r"kp: weight_decay=-0\.1; it is 0 or more"),
        ("dfa(scale=1e999)", r"a number in it is too large"),
        ("local_loss(features=0)", r"local_loss: features=0; it is 1 or more"),
    ],
)
def test_defect_33_a_mistake_in_a_rule_is_one_sentence(rule: str, message: str) -> None:
    with pytest.raises(altprop.RuleError, match=message) as caught:
        compiled(rule)
    assert "\n" not in str(caught.value)


def test_defect_33_a_rule_draws_from_the_nets_own_stream() -> None:
    net = compiled("draws")
    before = torch.get_rng_state()
    net.step(X, Y)
    other = copy.deepcopy(net)
    assert torch.equal(torch.get_rng_state(), before)
    weights = net.model[0].weight.detach().clone()
    net.step(X, Y)
    assert not torch.equal(weights, net.model[0].weight)
    torch.manual_seed(7)  # of no matter
    other.step(X, Y)
    assert torch.equal(other.model[0].weight, net.model[0].weight)
    fresh = compiled("draws")
    assert [slot.name for slot in fresh.graph.programs["step"].inputs if slot.kind == "noise"] == ["0:drawn:0"]
