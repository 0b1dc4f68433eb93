"""Layers of torch_geometric, where it is installed: `pip install torch_geometric`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from against_autograd import check_against_autograd, check_every_parameter_moves
from torch import nn
from zoo_architectures import graph
from zoo_cases import CLASSES, Case, labels


class Net(nn.Module):
    """Two layers that read the edges of a graph."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x, edges)), edges)


LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    "gcn": lambda own: Net(own.GCNConv(4, 5), own.GCNConv(5, CLASSES)),
    "gat": lambda own: Net(own.GATConv(4, 5, heads=2), own.GATConv(10, CLASSES)),
    "sage": lambda own: Net(own.SAGEConv(4, 5), own.SAGEConv(5, CLASSES)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore")
def test_layers(name: str) -> None:
    own = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    case = Case(name, lambda: LAYERS[name](own), graph, labels())
    check_against_autograd(case)
    for rule in ("dfa", "reclra", "fa"):
        check_every_parameter_moves(case, rule)
