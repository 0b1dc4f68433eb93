"""Backpropagation that nobody asked for, and globs that match nothing."""

import ast
import copy
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.ir.errors import CompileError, RuleError

ROOT = Path(__file__).resolve().parents[2]


class Masked(nn.Module):
    """Computes on the positions that a mask chooses, so that one dimension mixes samples and positions.

    Args:
        inner: what is computed there.
        before: layers in front, which can be cut.
        behind: layers behind, which can be cut as well.
    """

    def __init__(self, inner: nn.Module, before: nn.Module | None = None, behind: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.inner, self.behind = before or nn.Identity(), inner, behind or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.before(x)
        chosen = x[..., 0] > 0
        out = torch.zeros(*x.shape[:-1], 4, dtype=h.dtype)
        out[chosen] = self.inner(h[chosen])
        return self.behind(out)


def deep(width: int = 3, activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 6), activation or nn.Tanh(), nn.Linear(6, 4))


X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


def over_positions(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("rule", ["reclra", "dfa", "fa"])
def test_defect_01_a_model_in_one_region_is_not_trained_by_backprop_unasked(rule: str) -> None:
    with pytest.raises(CompileError) as refused:
        altprop.compile(Masked(deep()), rule=rule, example_inputs=(X,), loss=over_positions)
    assert str(refused.value) == (
        "no good cut: inner holds one layer behind another (inner.0.weight, inner.0.bias, inner.2.weight, "
        f'inner.2.bias), and makes the model\'s output, so the rule "{rule}" would train all of them by '
        'backpropagation. Write rule={"*": "bp"} if that is what you want, or alter the model so that each of its '
        "layers takes a batch and gives a batch."
    )


def test_defect_01_the_same_for_a_share_of_a_model() -> None:
    model = Masked(deep(4), before=nn.Sequential(nn.Linear(3, 4), nn.Tanh()))
    with pytest.raises(CompileError, match=r'rule=\{"inner": "bp", "\*": "dfa"\}'):
        altprop.compile(model, rule="dfa", example_inputs=(X,), loss=over_positions)


def test_defect_01_the_same_without_an_activation_between_the_layers() -> None:
    with pytest.raises(CompileError, match="holds one layer behind another"):
        altprop.compile(Masked(deep(activation=nn.Identity())), rule="dfa", example_inputs=(X,), loss=over_positions)


@pytest.mark.parametrize(
    ("asked", "rules"),
    [("bp", {}), ({"*": "bp"}, {}), ("dfa", {"regions": ["inner"]})],
    ids=["bp", "by a glob", "as a region"],
)
def test_defect_01_who_asks_for_it_gets_it(asked: object, rules: dict[str, object]) -> None:
    model = Masked(deep())
    net = altprop.compile(model, rule=asked, example_inputs=(X,), loss=over_positions, **rules)
    twin, target = copy.deepcopy(model), torch.randint(4, (4, 5))
    net.backward(X, target)
    over_positions(twin(X), target).backward()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_defect_01_a_hidden_region_with_two_layers_is_said() -> None:
    model = Masked(deep(), behind=nn.Linear(4, 3))
    with pytest.warns(UserWarning, match=r"inner holds one layer behind another \(.*learns by backprop"):
        altprop.compile(model, rule="dfa", example_inputs=(X,), loss=over_positions)


def readme_model() -> nn.Module:
    """The model of README's first example."""
    found = re.search(r"model = (nn\.Sequential\(.*\))$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    model: nn.Module = eval(found[1], {"nn": nn})
    return model


def test_defect_07_readme_gives_a_mapping_of_rules_that_does_what_it_says() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (given,) = [ast.literal_eval(one) for one in re.findall(r"`rule=(\{.*?\})`", text)]
    net = altprop.compile(readme_model(), rule=given, example_inputs=(torch.rand(4, 64),))
    assert given == {"0": "dfa", "*": "bp"}
    assert [net.explain()[f"{index}.weight"].rule for index in (0, 2, 4)] == ["dfa", "bp", "bp"]
    assert net.explain()["0.weight"].connection == "4->0 (dense)"


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


NAMED = {"encoder": mlp(), "act": nn.Tanh(), "head": nn.Linear(3, 3)}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"7.*": "dfa", "*": "bp"}, 'rule: no region matches "7.*". The regions are "encoder.0", "encoder.2", '),
        ({"encoder.0.*": "dfa", "*": "bp"}, 'rule: no region matches "encoder.0.*". The nearest are "encoder.0", '),
        ({"heads": "fa", "*": "dfa"}, 'rule: no region matches "heads". The nearest are "head".'),
        ({"*": "dfa", "head": "bp"}, 'rule: "head" stands behind "*", which takes every region: write "*" last.'),
        ("reclra(kappa={'zzz': 0.5})", 'reclra(kappa=...): no region matches "zzz". The regions are "encoder.0", '),
        ({"head": "bp", "*": "reclra(mixed={'decoder.*': 0.5})"}, 'reclra(mixed=...): no region matches "decoder.*"'),
    ],
)
def test_defect_07_globs_that_match_no_region_are_refused(rule: object, message: str) -> None:
    with pytest.raises(RuleError, match=re.escape(message)):
        altprop.compile(nn.Sequential(OrderedDict(NAMED)), rule=rule, example_inputs=(torch.randn(4, 6),))


def test_defect_07_a_frozen_module_may_be_named_since_it_may_thaw() -> None:
    model = mlp()
    model[2].requires_grad_(False)
    rules = {"2": "fa", "*": "reclra(kappa={'2': 0.5})"}
    net = altprop.compile(model, rule=rules, example_inputs=(torch.randn(4, 6),))
    assert net.explain()["2.weight"].how == "frozen"
