"""Identical regions are derived once, and what they share is right for each of them."""

import torch
from test_oracle import check_against_autograd
from torch import nn
from zoo import Case, labels, rows

import altprop


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
