"""What every step file keeps to, so that it is read with ease in a viewer and costs an engine nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx


def assert_tidy(path: Path) -> None:
    """Operators have names of their own and say where they belong; none does what another does; a cast is made once."""
    nodes = list(onnx.load(path).graph.node)
    assert not [name for name, count in Counter(node.name for node in nodes).items() if count > 1 or "/" not in name]
    lost = [node.name for node in nodes if "altprop.part" not in {entry.key for entry in node.metadata_props}]
    assert not lost, "no metadata"
    # A result that has two names is a copy each time: a graph has one name a result.
    twice = [what for what, count in Counter(_deeds(nodes)).items() if count > 1]
    assert not twice


def _deeds(nodes: list[onnx.NodeProto]) -> Iterator[tuple[object, ...]]:
    for node in nodes:
        if node.op_type != "Identity":
            yield node.op_type, tuple(node.input), tuple(sorted(map(str, node.attribute)))
