"""Where everything stands in a picture, in inches.

Each region has a row of its own, in forward order. Long forward edges pass the rows between through
*waypoints*, and igraph's Sugiyama layout orders boxes and waypoints so that edges cross little. The error
neurons stand in a lane on the right of all that.
"""

import dataclasses
from collections.abc import Mapping
from itertools import pairwise

import igraph

from altprop.ir.drawing.as_networkx import Network

Point = tuple[float, float]
_TRACK = 0.28  # between two waypoints, or a waypoint and a box
_MARGIN = 0.35


@dataclasses.dataclass(frozen=True)
class Layout:
    """Places in inches; y grows downwards, rows are `row_height` apart.

    Attributes:
        boxes: centre of each box (inputs, operators, regions).
        routes: points of each forward edge, from box to box.
        rows: row of each box; the last row is that of the output or loss.
        lane: x of the error neurons.
        end: centre of the output or loss.
        row_height: distance of two rows.
    """

    boxes: Mapping[str, Point]
    routes: Mapping[tuple[str, str], tuple[Point, ...]]
    rows: Mapping[str, int]
    lane: float
    end: Point
    row_height: float


def place(network: Network, widths: Mapping[str, float], row_height: float, gap: float) -> Layout:
    """Places boxes, forward edges and the lane of error neurons.

    Args:
        network: what to draw.
        widths: width of each box in inches.
        row_height: distance of two rows in inches.
        gap: from the widest box to the lane in inches.
    """
    rows = _rows(network)
    edges = list(dict.fromkeys((a, b) for a, b in network.edges() if a in rows and b in rows))
    names, layers, steps, paths = _waypoints(rows, edges)
    graph = igraph.Graph(n=len(names), edges=steps, directed=True)
    placed = (
        graph.layout_sugiyama(layers=layers, hgap=_TRACK, maxiter=200).coords if steps else [[0.0, 0.0]] * len(names)
    )
    xs = _spread([point[0] for point in placed], layers, [widths.get(name, 0.0) for name in names])
    left = min(x - widths.get(name, 0.0) / 2 for name, x in zip(names, xs, strict=True))
    points = [(x - left + _MARGIN, layer * row_height) for x, layer in zip(xs, layers, strict=True)]
    boxes = {name: point for name, point in zip(names, points, strict=True) if name}
    right = max(point[0] + widths.get(name, 0.0) / 2 for name, point in zip(names, points, strict=True))
    routes = {edge: tuple(points[index] for index in path) for edge, path in zip(edges, paths, strict=True)}
    lane = right + gap
    end = (lane, (max(rows.values(), default=0) + 1) * row_height)
    return Layout(boxes, routes, rows, lane, end, row_height)


def _rows(network: Network) -> dict[str, int]:
    """Inputs share the first row; every other box has its own."""
    kinds = dict(network.nodes(data="kind"))
    inputs = [name for name, kind in kinds.items() if kind == "input"]
    others = [name for name, kind in kinds.items() if kind in ("region", "operator")]
    return {**dict.fromkeys(inputs, 0), **{name: row for row, name in enumerate(others, start=1)}}


def _waypoints(
    rows: Mapping[str, int], edges: list[tuple[str, str]]
) -> tuple[list[str], list[int], list[tuple[int, int]], list[list[int]]]:
    """Splits edges into steps of one row. Returns names ("" for waypoints), rows, steps, and paths."""
    names, layers = list(rows), list(rows.values())
    index = {name: position for position, name in enumerate(names)}
    steps: list[tuple[int, int]] = []
    paths: list[list[int]] = []
    for source, target in edges:
        path = [index[source]]
        for row in range(rows[source] + 1, rows[target]):
            path.append(len(names))
            names.append("")
            layers.append(row)
        path.append(index[target])
        steps += pairwise(path)
        paths.append(path)
    return names, layers, steps, paths


def _spread(xs: list[float], layers: list[int], widths: list[float]) -> list[float]:
    """Moves what stands beside a box outwards, so that it clears the box."""
    result = list(xs)
    for layer in set(layers):
        members = sorted((i for i, own in enumerate(layers) if own == layer), key=lambda i: xs[i])
        boxes = [i for i in members if widths[i]]
        if not boxes:
            continue
        anchor = members.index(boxes[0])
        for position in range(anchor + 1, len(members)):
            here, before = members[position], members[position - 1]
            least = result[before] + (widths[before] + widths[here]) / 2 + _TRACK
            result[here] = max(xs[here] + widths[boxes[0]] / 2, least)
        for position in range(anchor - 1, -1, -1):
            here, after = members[position], members[position + 1]
            most = result[after] - (widths[after] + widths[here]) / 2 - _TRACK
            result[here] = min(xs[here] - widths[boxes[0]] / 2, most)
    return result
