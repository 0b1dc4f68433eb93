"""Keeps the order in which a forward draws random numbers, so that one seed gives a net the numbers of its model.

What no parameter feeds runs in front of all regions. A draw there, such as the one of a stochastic depth, may have come
behind one of a region's, such as a dropout's; then it waits for that:

    model        a dropout in a region, then noise that no parameter feeds
    as built     noise, dropout        as ordered     dropout, noise
"""

import itertools
from collections.abc import Iterable, Sequence

from torch import fx

from altprop.ir.operators import is_random
from altprop.ir.walks import descendants, positions

Draw = tuple[int, fx.Node]
"""Where an operator that draws stands in the model's forward, and in a program."""


def draws_among(captured: Iterable[fx.Node], copies: Sequence[fx.Node], places: dict[fx.Node, int]) -> list[Draw]:
    """Pairs the operators of a forward that draw with their copies; nothing where they are not as many."""
    drawn = sorted(places[node] for node in captured if is_random(node))
    made = [node for node in copies if is_random(node)]
    return list(zip(drawn, made, strict=True)) if len(drawn) == len(made) else []


def draw_in_order(graph: fx.Graph, draws: Iterable[Draw]) -> None:
    """Moves each draw, and what reads it, behind those in front of it in the model's forward."""
    line = [node for _, node in sorted(draws, key=lambda draw: draw[0])]
    order = positions(graph.nodes) if len(line) > 1 else {}
    for before, node in itertools.pairwise(line):
        if order[node] < order[before]:
            moved = sorted({node, *descendants([node])}, key=order.__getitem__)
            for one in reversed([one for one in moved if order[one] < order[before]]):
                before.append(one)
            order = positions(graph.nodes)
