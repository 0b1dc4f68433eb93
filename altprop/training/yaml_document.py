"""Reads YAML that anybody may have written: one sentence or plain values.

YAML can repeat a part of itself by an alias, so that a short text stands for a huge value; it can nest without end, and
has numbers and dates that Python refuses. A configuration is a small tree.
"""

from collections.abc import Iterator
from typing import Any

import yaml

SIZE, NODES, DEPTH = 2**20, 10_000, 32
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """A text that is not the YAML of a small tree; the message says why."""


def parse_yaml(text: str) -> Any:
    """Returns the value that a text holds.

    Raises:
        YamlError: it is not YAML, or larger, deeper or odder than a configuration.
    """
    if len(text) > SIZE:
        raise YamlError(f"it has {len(text)} characters, more than {SIZE}")
    try:
        for depth in _depths(text):
            if depth > DEPTH:
                raise YamlError(f"it is nested more than {DEPTH} deep")
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _count(node, {}, set())
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())[:300]) from error
    except YamlError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # a date or a number that is none
        raise YamlError(" ".join(str(error).split())[:300]) from error


def _depths(text: str) -> Iterator[int]:
    """How deep each opening stands; lazily, so that what is too deep is not read on."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        yield depth


def _count(node: yaml.Node, known: dict[int, int], open_: set[int]) -> int:
    """Counts nodes, those behind aliases as often as they stand there."""
    if id(node) in open_:
        raise YamlError("an alias stands within what it repeats")
    if id(node) not in known:
        open_.add(id(node))
        children = node.value if isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_count(part, known, open_) for part in parts)
        open_.discard(id(node))
    if known[id(node)] > NODES:
        raise YamlError(f"it has more than {NODES} values, aliases counted")
    return known[id(node)]
