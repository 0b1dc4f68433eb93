"""Citation graphs in the planetoid form: nodes with bags of words, edges, and a fixed split of labels."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.data.dataset import DataError

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


@dataclasses.dataclass(frozen=True)
class CitationGraph:
    """A graph whose nodes are to be classified.

    Attributes:
        features: words of each node, rows that sum to one: (nodes, words).
        edges: source and target of every edge, both ways and to itself: (2, edges).
        weights: `1 / sqrt(degree of source * degree of target)`: (edges,).
        labels: class of each node: (nodes,).
        train: which nodes have a label in training: (nodes,), bool; likewise `validation` and `test`.
    """

    features: torch.Tensor
    edges: torch.Tensor
    weights: torch.Tensor
    labels: torch.Tensor
    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


def load_citations(name: str, folder: str | Path) -> CitationGraph:
    """Loads "cora" from `folder/planetoid`: 20 labels a class for training, 500 for validation, 1,000 for the test.

    Raises:
        DataError: a file is missing; the message says where it can be had.
    """
    parts = {part: _read(Path(folder) / "planetoid" / f"ind.{name}.{part}") for part in PARTS}
    order = np.asarray(parts["test.index"])
    features = np.concatenate([parts["allx"].toarray(), parts["tx"].toarray()])
    labels = np.concatenate([parts["ally"], parts["ty"]])
    if len(features) != len(parts["graph"]):
        raise DataError(f"{name}: the files hold {len(features)} of {len(parts['graph'])} nodes; use cora")
    place = np.sort(order)
    features[order], labels[order] = features[place].copy(), labels[place].copy()
    nodes, known = len(features), len(parts["y"])
    edges, weights = _edges(parts["graph"], nodes)
    test = torch.zeros(nodes, dtype=torch.bool)
    test[torch.from_numpy(order)] = True
    index = torch.arange(nodes)
    return CitationGraph(
        features=torch.from_numpy(features / np.maximum(features.sum(1, keepdims=True), 1)).float(),
        edges=edges,
        weights=weights,
        labels=torch.from_numpy(labels.argmax(1)),
        train=index < known,
        validation=(index >= known) & (index < known + 500),
        test=test,
    )


def _edges(graph: dict[int, list[int]], nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = {(i, j) for i, near in graph.items() for j in near if i != j}
    pairs |= {(j, i) for i, j in pairs} | {(i, i) for i in range(nodes)}
    edges = torch.tensor(sorted(pairs)).t().contiguous()
    degree = torch.bincount(edges[1], minlength=nodes).float()
    return edges, (degree[edges[0]] * degree[edges[1]]).rsqrt()


def _read(path: Path) -> Any:
    if not path.exists():
        raise DataError(
            f"{path.name} is missing; fetch the ind.* files from github.com/kimiyoung/planetoid into {path.parent}, or "
            "name another folder by ALTPROP_DATA"
        )
    if path.name.endswith("index"):
        return [int(line) for line in path.read_text().split()]
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")
