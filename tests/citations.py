"""A small citation graph, in the files that the real ones come in."""

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np


def csr_pickle(dense: np.ndarray) -> bytes:
    """A pickle as scipy writes one of a sparse matrix, without scipy."""
    starts = np.concatenate([[0], np.cumsum((dense != 0).sum(1))]).astype(np.int32)
    rows, columns = np.nonzero(dense)
    state = {"_shape": dense.shape, "data": dense[rows, columns].astype(np.float32), "indices": columns.astype("i4")}
    body = pickle.dumps(state | {"indptr": starts}, protocol=2)
    return b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81" + body[2:-1] + b"b."


def make_citations(home: Path) -> dict[str, Any]:
    """Writes a graph of eight nodes, two of them for the test; returns its parts as they are written."""
    home.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    words, labels = draw.integers(0, 2, (8, 5)), np.eye(3)[draw.integers(0, 3, 8)]
    graph = defaultdict(list, {node: [(node + 1) % 8, (node + 3) % 8] for node in range(8)})
    parts = {"y": labels[:3], "ally": labels[:6], "ty": labels[6:], "graph": graph}
    for part, value in parts.items():
        (home / f"ind.cora.{part}").write_bytes(pickle.dumps(value, protocol=2))
    for part, value in {"x": words[:3], "allx": words[:6], "tx": words[6:]}.items():
        (home / f"ind.cora.{part}").write_bytes(csr_pickle(value))
    (home / "ind.cora.test.index").write_text("7\n6\n")
    return {"words": words, "labels": labels}
