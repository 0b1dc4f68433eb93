"""A graph network on Cora by direct feedback alignment and by backprop.

    python examples/citation_graph.py --data-dir data

Two layers of graph convolution with 16 hidden units, 140 labelled papers for training and 1,000 for the test, with the
settings of Launay et al. (2020). Each rule gets the same initial weights. The accuracy on the test is taken where that
on the validation is best.
"""

import os
import statistics
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import track
from torch import nn
from torch.nn import functional as F

import altprop
from altprop.data import DataError
from altprop.data.planetoid import CitationGraph, load_citations


class GraphConvolution(nn.Module):
    """`A x W^T + b`: a linear layer, then a weighted sum over the edges into each node."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        messages = x[edges[0]] * weights[:, None]
        return torch.zeros_like(x).index_add(0, edges[1], messages) + self.bias


class GraphNet(nn.Module):
    """Two graph convolutions with dropout before each."""

    def __init__(self, words: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.first = GraphConvolution(words, hidden)
        self.second = GraphConvolution(hidden, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(self.dropout(x), edges, weights))
        return self.second(self.dropout(x), edges, weights)


def labelled_loss(output: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the nodes that have a label."""
    labels, known = target
    return (F.cross_entropy(output, labels, reduction="none") * known).sum() / known.sum()


def train(graph: CitationGraph, rule: str, seed: int, epochs: int, lr: float, dropout: float, decay: float) -> float:
    """Trains once; returns the accuracy on the test in percent at the best epoch of the validation."""
    torch.manual_seed(seed)
    model = GraphNet(graph.features.shape[1], 16, graph.classes, dropout)
    inputs = (graph.features, graph.edges, graph.weights)
    net = altprop.compile(model, rule, example_inputs=inputs, loss=labelled_loss, seed=seed)
    groups = [{"params": model.first.parameters(), "weight_decay": decay}, {"params": model.second.parameters()}]
    optimizer = torch.optim.Adam(groups, lr=lr)
    target = (graph.labels, graph.train.float())
    best = (0.0, 0.0)
    for _ in range(epochs):
        net.train()
        optimizer.zero_grad()
        net.backward(inputs, target)
        optimizer.step()
        net.eval()
        right = (net(*inputs).argmax(1) == graph.labels).float()
        best = max(best, (float(right[graph.validation].mean()), float(right[graph.test].mean())))
    return 100 * best[1]


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Where the data sets' files are.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Steps on the whole graph.")] = 250,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 0.01,
    dropout: Annotated[float, typer.Option(min=0, max=1, help="Share of inputs that a layer loses.")] = 0.1,
    decay: Annotated[float, typer.Option(min=0, help="Weight decay of the first layer.")] = 1e-4,
    rule: Annotated[str, typer.Option(help="Rule beside backprop.")] = "dfa",
) -> None:
    """Train a graph network on Cora by DFA and by backprop, and compare."""
    try:
        graph = load_citations("cora", data_dir or os.environ.get("ALTPROP_DATA") or "data")
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    means = {}
    for one in (rule, "bp"):
        numbers = track(range(seeds), one, transient=True, disable=not sys.stdout.isatty())
        found = [train(graph, one, seed, epochs, lr, dropout, decay) for seed in numbers]
        means[one] = statistics.fmean(found)
        spread = statistics.stdev(found) if seeds > 1 else 0.0
        print(
            f"{one:4} test accuracy {means[one]:.1f} %, standard deviation {spread:.1f} over {seeds} seeds", flush=True
        )
    print(f"{rule} is {means['bp'] - means[rule]:.1f} points behind bp")


if __name__ == "__main__":
    typer.run(main)
