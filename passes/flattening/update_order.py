"""When each local update runs: as soon as all that it reads is there.

Nothing but its inputs decides. An update that reads its own region and the target runs right behind that region's
forward, so that what it keeps is freed before the next region begins (*update unlocking*); one that reads an error of
the loss runs behind the loss, in the order in which errors are sent.
"""

from collections import Counter

from torch import fx

from altprop.ir.program import Slot
from altprop.ir.updates import LocalUpdate
from altprop.passes.flattening.builder import LOSS_TASK, FlatBuilder, aten
from altprop.passes.flattening.reduction import Reduction


class UpdateOrder:
    """The updates that have not run yet, in the order in which errors are sent."""

    def __init__(
        self,
        builder: FlatBuilder,
        reduction: Reduction,
        scale: fx.Node | None = None,
        *,
        forward_first: bool = False,
    ) -> None:
        """Takes all updates of a program in the making.

        Args:
            builder: builds the program.
            reduction: of the loss.
            scale: the factor that results are multiplied by at the end.
            forward_first: whether updates that may run at one time do so in the order of the forward.
        """
        self._builder = builder
        self._scale = scale
        self._reduction = reduction
        self._waiting = list(builder.source.updates.values())
        if forward_first:
            places = {region.name: place for place, region in enumerate(builder.source.regions)}
            self._waiting.sort(key=lambda update: places[update.region])
        self._remaining = Counter(name for update in self._waiting for name in update.gradients)
        self._totals: dict[str, fx.Node] = {}

    def run_ready(self) -> int:
        """Adds the updates whose inputs are all there. Returns how many."""
        count = 0
        ready = self._next()
        while ready is not None:
            self._waiting.remove(ready)
            self._add(ready)
            count += 1
            ready = self._next()
        return count

    def _next(self) -> LocalUpdate | None:
        known = self._builder.values
        if not self._reduction.is_known:
            return None
        return next((u for u in self._waiting if all(key in known for key in u.inputs.values())), None)

    def _add(self, update: LocalUpdate) -> None:
        builder = self._builder
        with builder.task("E", LOSS_TASK):
            scale = self._reduction.factor()
        builder.update(update)
        with builder.task("STEP", update.region):
            self._results(update, scale)

    def _results(self, update: LocalUpdate, scale: fx.Node | None) -> None:
        """Returns what an update gives: lessons, and directions, summed over the regions that move a parameter."""
        builder = self._builder
        for value in update.results:
            if value[0] == "lesson":
                builder.result(Slot("lesson", f"{value[2]}:{value[1]}"), builder.values[value])
        for name in update.feedback_gradients:
            key = ("feedback_gradient", name)
            self._result(Slot("feedback_gradient", name), builder.values[key], scale, update.finish.get(key))
        for name in update.gradients:
            node = builder.values[("gradient", update.region, name)]
            if name in self._totals:
                node = builder.call(aten.add.Tensor, self._totals[name], node, value=node.meta.get("val"))
            self._totals[name] = node
            self._remaining[name] -= 1
            if not self._remaining[name]:
                self._result(Slot("gradient", name), node, scale, update.finish.get(("gradient", update.region, name)))

    def _result(self, slot: Slot, node: fx.Node, scale: fx.Node | None, finish: fx.GraphModule | None) -> None:
        if scale is not None:
            node = self._builder.call(aten.mul.Tensor, node, scale, value=node.meta.get("val"))
        if finish is not None:
            names = [n.name for n in finish.graph.nodes if n.op == "placeholder"]
            given = (node, self._builder.parameter(slot))
            (node,) = self._builder.copy(finish, dict(zip(names, given, strict=True)))
        if self._scale is not None:
            node = self._builder.call(aten.mul.Tensor, node, self._scale, value=node.meta.get("val"))
        self._builder.result(slot, node)
