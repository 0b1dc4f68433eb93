"""Citation graphs in the planetoid form: nodes with bags of words, edges, and a fixed split of labels."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.data.dataset import DataError
from altprop.data.pickles import SparseMatrix, read_pickle
from altprop.data.read_whole import read_file

_AGAIN = "fetch the ind.* files again from github.com/kimiyoung/planetoid"
_MOST = 2**24  # numbers of all features, with their zeros, or of edges; Citeseer has three quarters of it
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

    Nothing but arrays and plain values is built from the files.

    Raises:
        DataError: a file is missing, damaged, or asks for anything else; the message says where it can be had.
    """
    parts = {part: _read(Path(folder) / "planetoid" / f"ind.{name}.{part}") for part in PARTS}
    try:
        return _graph(name, parts)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{name}: the files hold something else than a citation graph ({reason}); {_AGAIN}") from error


def _graph(name: str, parts: dict[str, Any]) -> CitationGraph:
    """Puts the parts together."""
    order, first, second = np.asarray(parts["test.index"]), parts["allx"], parts["tx"]
    nodes, known = first.shape[0] + second.shape[0], len(parts["y"])
    if nodes != len(parts["graph"]):
        raise DataError(f"{name}: the files hold {nodes} of {len(parts['graph'])} nodes; use cora")
    one_hot = np.concatenate([parts["ally"], parts["ty"]])
    whole = np.array_equal(np.sort(order), np.arange(first.shape[0], nodes))
    if not whole or one_hot.ndim != 2 or len(one_hot) != nodes or not 0 < known <= first.shape[0]:
        raise DataError(f"{name}: the files do not belong together; {_AGAIN}")
    features, place = np.concatenate([_dense(name, first), _dense(name, second)]), np.sort(order)
    labels = one_hot.argmax(1)
    features[order], labels[order] = features[place].copy(), labels[place].copy()
    edges, weights = _edges(name, parts["graph"], nodes)
    test = torch.zeros(nodes, dtype=torch.bool)
    test[torch.from_numpy(order)] = True
    index = torch.arange(nodes)
    return CitationGraph(
        features=torch.from_numpy(features / np.maximum(features.sum(1, keepdims=True), 1)).float(),
        edges=edges,
        weights=weights,
        labels=torch.from_numpy(labels),
        train=index < known,
        validation=(index >= known) & (index < known + 500),
        test=test,
    )


def _dense(name: str, matrix: SparseMatrix) -> np.ndarray:
    """The matrix with its zeros."""
    size = matrix.shape[0] * matrix.shape[1]
    if size > _MOST or not np.isfinite(matrix.values).all():
        raise DataError(f"{name}: features of {matrix.shape[0]} nodes and {matrix.shape[1]} words are odd; {_AGAIN}")
    made = np.zeros(matrix.shape, np.float32)
    np.add.at(made, (matrix.rows, matrix.columns), matrix.values)
    return made


def _edges(name: str, graph: dict[int, list[int]], nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    counts = [len(near) for near in graph.values()]
    if sum(counts) > _MOST:
        raise DataError(f"{name}: {sum(counts)} edges are too many; {_AGAIN}")
    ends = np.array([node for near in graph.values() for node in near], dtype=np.int64)
    starts = np.repeat(np.array(list(graph), dtype=np.int64), counts)
    if len(ends) and not (min(ends.min(), starts.min()) >= 0 and max(ends.max(), starts.max()) < nodes):
        raise DataError(f"{name}: an edge leads out of the graph; {_AGAIN}")
    own = np.arange(nodes) * (nodes + 1)
    pairs = np.unique(np.concatenate([starts * nodes + ends, ends * nodes + starts, own]))
    edges = torch.from_numpy(np.stack(np.divmod(pairs, nodes)))
    degree = torch.bincount(edges[1], minlength=nodes).float()
    return edges, (degree[edges[0]] * degree[edges[1]]).rsqrt()


def _read(path: Path) -> Any:
    if not path.exists():
        raise DataError(
            f"{path.name} is missing; fetch the ind.* files from github.com/kimiyoung/planetoid into {path.parent}, or "
            "name another folder by ALTPROP_DATA"
        )
    content = read_file(path)
    try:
        if path.name.endswith("index"):
            return [int(line) for line in content.decode("ascii").split()]
        return read_pickle(content)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a list of numbers: byte {error.start} is not ASCII; {_AGAIN}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is not a file of a citation graph ({reason}); {_AGAIN}") from error
