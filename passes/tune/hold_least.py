"""Holds as little memory as a step can: what updates read of the forward runs again in front of them.

Where each update waits for the loss alone, as under direct feedback, the updates run in the order of the forward, and
the forward runs once more beside them: nothing is kept but the model's inputs. Where errors come back region by region,
as under backpropagation, some values are kept, and what lies between two of them runs again when the errors come there:
checkpoints. Which ones is found by foretelling the peak for some of their numbers. No bit changes; a step takes up to
one forward longer.
"""

import operator
from collections.abc import Iterator

from torch import fx

from altprop.ir.program import LOSS
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.keep_masks import keep_masks
from altprop.passes.tune.live_peak import LivePeak
from altprop.passes.tune.rerun import Plan, Rerun

_MOST_PARTS = 24  # into which the forward is cut by checkpoints
_SMALL = 256  # a value is kept that is so many times smaller than the largest
_CHUNKS = 32  # of the forward, of which each is kept after all where that costs nothing
_WORTH = 0.98  # of the peak; with a smaller gain nothing runs again


class HoldLeast(TuningPass):
    """Runs the forward again where updates read it, instead of keeping what it made."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether that is wanted, and there is a loss to begin behind."""
        return tuned.allowed.least and any(slot.kind == "loss" for slot in tuned.program.outputs)

    def run(self, tuned: Tuned) -> int:
        """See `hold_least`."""
        return hold_least(tuned.program.graph.graph, tuned.program.node_of(LOSS))


def hold_least(graph: fx.Graph, loss: fx.Node) -> int:
    """Lets operators run again so that the peak is least. Returns how many.

    Args:
        graph: of a program that holds forward and updates.
        loss: what the forward leads to.
    """
    keep_masks(graph)
    rerun = Rerun(graph, loss)
    return rerun.apply(_Choice(rerun).plan()) if rerun.wanted else 0


class _Choice:
    """Which values are kept."""

    def __init__(self, rerun: Rerun) -> None:
        self.rerun = rerun
        self.peak = LivePeak(rerun)
        self.line = sorted(rerun.inside, key=rerun.order.__getitem__)
        self.wanted = set(rerun.wanted)
        size, lies = self.peak.size, self.peak.lies
        largest = max((size[node] for node in self.wanted), default=0)
        small = {node for node in self.line if lies[node] is None and size[node] * _SMALL < largest}
        self.several = {node.all_input_nodes[0] for node in self.line if node.target is operator.getitem}
        self.always = (small | (self.peak.returned & rerun.inside)) - self.several

    def plan(self) -> Plan:
        """Returns the plan with the least peak; an empty one where little is to be gained."""
        nothing: Plan = {}
        usual = self.peak.bytes(nothing)
        tried = [(self._bytes(kept), len(kept), kept) for kept in self._checkpoints()]
        least, _, kept = min(tried, key=lambda one: one[:2])
        if least > _WORTH * usual:
            return nothing
        for chunk in reversed(list(self._chunks())):
            if self._bytes(kept | chunk) <= least:
                kept |= chunk
        return self._plan(kept)

    def _plan(self, kept: set[fx.Node]) -> Plan:
        return self.rerun.plan(self.rerun.inside - kept)

    def _bytes(self, kept: set[fx.Node]) -> int:
        return self.peak.bytes(self._plan(kept))

    def _checkpoints(self) -> Iterator[set[fx.Node]]:
        """Yields what may be kept, for some numbers of checkpoints."""
        total = sum(self.peak.size[node] for node in self.wanted)
        crossing = self._crossing()
        seen: set[tuple[int, ...]] = set()
        for parts in range(1, _MOST_PARTS + 1):
            places = tuple(self._places(total / parts, crossing)) if parts > 1 else ()
            if places not in seen:
                seen.add(places)
                yield self.always.union(*(self._crossers(place) for place in places))

    def _reach(self, node: fx.Node) -> int:
        """The last place of the forward that reads a value."""
        order, loss = self.rerun.order, self.rerun.order[self.rerun.loss]
        return max((order[user] for user in node.users if order[user] <= loss), default=order[node])

    def _crossing(self) -> list[int]:
        """Bytes that pass from each place of the forward on to later ones."""
        root: dict[fx.Node, fx.Node] = {}
        end: dict[fx.Node, int] = {}
        for node in self.line:
            source = self.peak.lies[node]
            root[node] = root.get(source, node) if source is not None else node
            end[root[node]] = max(end.get(root[node], 0), self._reach(node))
        changes = [0] * (len(self.rerun.order) + 1)
        for node, last in end.items():
            if node not in self.always:
                changes[self.rerun.order[node]] += self.peak.size[node]
                changes[last] -= self.peak.size[node]
        sums, total = [], 0
        for change in changes:
            total += change
            sums.append(total)
        return sums

    def _crossers(self, place: int) -> set[fx.Node]:
        order = self.rerun.order
        return {n for n in self.line if order[n] <= place < self._reach(n) and n not in self.several}

    def _places(self, budget: float, crossing: list[int]) -> Iterator[int]:
        """Yields places of checkpoints between which updates want no more than so many bytes."""
        since, places = 0, []
        for node in self.line:
            since += self.peak.size[node] if node in self.wanted else 0
            places.append(self.rerun.order[node])
            if since > budget:
                best = min(reversed(places[len(places) // 2 :]), key=crossing.__getitem__)
                yield best
                since, places = 0, []

    def _chunks(self) -> Iterator[set[fx.Node]]:
        """Yields what updates want of the forward, in parts of about the same number of bytes."""
        limit = sum(self.peak.size[node] for node in self.wanted) / _CHUNKS
        chunk: set[fx.Node] = set()
        for node in self.line:
            if node in self.wanted and node not in self.several:
                chunk = chunk | {node}
                if sum(self.peak.size[one] for one in chunk) >= limit:
                    yield chunk
                    chunk = set()
        if chunk:
            yield chunk
