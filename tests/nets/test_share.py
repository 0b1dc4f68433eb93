"""Identical regions are derived once, and what they share is right for each of them."""

import dataclasses
from typing import Any

import pytest
import torch
from against_autograd import check_against_autograd
from torch import nn
from zoo_cases import Case, labels, rows

import altprop
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import get_loss
from altprop.passes import derive_updates
from altprop.passes.derive_updates import DeriveUpdates

pytestmark = pytest.mark.third


class Tower(nn.Module):
    """Three equal blocks with a buffer each, one whose activation differs, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh()) for _ in range(3))
        self.other = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.held = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.held[0].weight.requires_grad_(False)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        for block in self.blocks:
            x = block(x)
        return self.out(self.held(self.other(x)))


def test_equal_blocks_share_a_graph() -> None:
    net = altprop.compile(Tower(), "dfa", example_inputs=(torch.randn(4, 7),))
    graphs = {name: local.graph for name, local in net.graph.locals.items()}
    assert graphs["blocks.0.0"] is graphs["blocks.1.0"] is graphs["blocks.2.0"]
    assert len({id(graph) for graph in graphs.values()}) == len(graphs) - 2
    own = net.graph.locals["blocks.2.0"]
    assert own.theta == ("blocks.2.0.weight", "blocks.2.0.bias", "blocks.2.1.weight", "blocks.2.1.bias")
    assert own.region.name == "blocks.2.0"


def test_shared_graphs_are_right() -> None:
    check_against_autograd(Case("tower", Tower, rows(7), labels()))


RULES = ("bp", "fa", "wm", "dfa(kind='unified')", "dkp", "drtp", "reclra(largest=1.0)", "dtp", "ddtp", "local_loss")


def tower_by(rule: str) -> ErrorGraph:
    return altprop.compile(Tower(), rule, example_inputs=(torch.randn(4, 7),)).history["insert_feedback"]


def described(graph: ErrorGraph) -> dict[str, Any]:
    """All of every update, with the graphs as text."""

    def text(value: Any) -> Any:
        return str(value) if isinstance(value, torch.fx.Graph) else str(getattr(value, "graph", value))

    found = {}
    for name, update in graph.updates.items():
        fields = {f.name: getattr(update, f.name) for f in dataclasses.fields(update)}
        fields["graph"], fields["finish"] = text(update.graph), {k: text(v) for k, v in update.finish.items()}
        found[name] = fields
    return found


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=pytest.mark.full) if rule == "local_loss" else rule for rule in RULES]
)
def test_a_shared_update_is_what_the_region_would_have_had(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tower_by(rule)
    derive = DeriveUpdates(loss=get_loss("cross_entropy"))
    shared = derive(graph).graph
    alone_by_nature = rule == "ddtp"  # each of its regions runs another stretch of the forward again
    assert (len({id(update.graph) for update in shared.updates.values()}) < len(shared.updates)) != alone_by_nature
    of_form = derive_updates.form_of
    monkeypatch.setattr(
        derive_updates, "form_of", lambda reads, text: dataclasses.replace(of_form(reads, text), key=object())
    )
    alone = derive(graph).graph
    assert len({id(update.graph) for update in alone.updates.values()}) == len(alone.updates)
    assert described(shared) == described(alone)


def test_a_rule_that_reads_names_shares_nothing() -> None:
    graph = tower_by("reclra(kappa={'blocks.1.*': 3.0})")
    updates = DeriveUpdates()(graph).graph.updates
    assert updates["blocks.1.0"].graph is not updates["blocks.2.0"].graph
    assert "3.0" in str(updates["blocks.1.0"].graph)
    assert "3.0" not in str(updates["blocks.2.0"].graph)


class Deep(nn.Module):
    """A transformer of three layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.embed = nn.Linear(4, 8)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(self.embed(x)))


@pytest.mark.parametrize("rule", ["bp", "reclra"])
def test_layers_of_a_transformer_share_their_updates(rule: str) -> None:
    net = altprop.compile(Deep(), rule, example_inputs=(torch.randn(4, 5, 4),))
    updates = net.graph.updates
    middle = {id(updates[name].graph) for name in updates if "layers.0." in name}
    assert middle
    assert middle == {id(updates[name].graph) for name in updates if "layers.1." in name}
