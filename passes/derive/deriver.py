"""Traces the update of one region: what its rule makes of what it is shown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.errors import CompileError
from altprop.ir.local import MissingProductError
from altprop.ir.loss import Loss
from altprop.ir.torch_private import enable_python_dispatcher
from altprop.ir.tracing import trace
from altprop.ir.updates import LocalUpdate, Value
from altprop.passes.derive.drawn_noise import take_noise
from altprop.passes.derive.rule_failures import check_assigned, check_gradients, explain
from altprop.passes.derive.rule_view import RuleView
from altprop.passes.derive.settle import Settling
from altprop.passes.derive.trace_sizes import sizes_from_batch
from altprop.passes.derive.traced_region import TracedLocal
from altprop.passes.derive.update_inputs import UpdateInputs, first_floating
from altprop.rules.base import Incoming, Rule
from altprop.rules.wiring import is_proportional


class Deriver:
    """Traces one update.

    Attributes:
        view: what the rule is shown; its `watch` says what the rule looked at.
        drawn: the noise that the rule draws.
    """

    def __init__(self, reads: UpdateInputs, rule: Rule, loss: Loss | None, settling: Settling | None = None) -> None:
        self.view = RuleView(reads, rule, loss, settling.phases if settling is not None else ())
        self.drawn: dict[str, Value] = {}
        self._reads = reads
        self._settling = settling
        self._captured = reads.captured
        self._region = reads.region
        self._rule = rule
        self._loss = loss
        self._assigned: list[Value] = []

    def derive(self) -> LocalUpdate:
        results: list[tuple[Value, torch.Tensor]] = []

        def local_update(*args: torch.Tensor) -> list[torch.Tensor]:
            results.clear()
            self._assigned.clear()
            results.extend(self._run(dict(zip(self._reads.all_values, args, strict=True))))
            return [value for _, value in results]

        fakes = self._captured.forms.distinct(self._reads.all_values.values())
        try:
            with torch.no_grad(), enable_python_dispatcher(), self._captured.fake_mode:
                module = trace(local_update, fakes)
            return self._read(module, [value for value, _ in results])
        except (CompileError, MissingProductError):
            raise
        except Exception as error:  # a rule is user code
            raise explain(self._rule, self._region.name, error, self._captured) from error

    def _run(self, values: Mapping[Value, torch.Tensor]) -> list[tuple[Value, torch.Tensor]]:
        name, phase = self._region.name, None
        results: list[tuple[Value, torch.Tensor]] = []
        if self._settling is not None:
            phase = self._settling.phases[0]
            if not self._settling.made:
                settled = self._settling.run(dict(values))
                values = {**values, **settled}
                results += settled.items()
        local, incoming = self.view.look(values, phase)
        d, e, felt = self.view.feel(local, incoming)
        results += felt
        teaches_itself = bool(self._region.learner)
        replaced = {} if teaches_itself else self._replaced(local, incoming, d, e)
        moved = {} if teaches_itself else self._rule.update(local, e)
        check_gradients(self._rule, local.local, self._captured, moved)
        count = None if self._rule.wiring.averaged else self._count()
        moved = {p: g if count is None else g * count for p, g in moved.items()}
        moved |= {p: g for p, g in replaced.items() if p in local.parameters}
        moved = _in_types_of(moved, local.parameters)
        results += [(("gradient", name, p), g) for p, g in moved.items()]
        if self._region.learner:
            results += self._lesson(local, values, e)
        for connection in incoming:
            if connection.connection.feedback.learning:
                moved = self._rule.feedback_update(local, connection, d, e)
                moved |= {n: g for n, g in replaced.items() if n in connection.feedback}
                moved = _in_types_of(moved, connection.feedback)
                results += [(("feedback_gradient", n), g) for n, g in moved.items()]
        if local.auxiliary:
            moved = self._rule.auxiliary_update(local, incoming, d, e)
            moved |= {n: g for n, g in replaced.items() if n in local.auxiliary}
            moved = _in_types_of(moved, local.auxiliary)
            results += [(("feedback_gradient", f"{name}:{n}"), g) for n, g in moved.items()]
        return results

    def _replaced(
        self, local: TracedLocal, incoming: Sequence[Incoming], d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the rule replaces: present value less new value, as gradients are."""
        region, own = self._region.name, local.parameters
        values = self._rule.assign(local, incoming, d, e)
        feedback = {n: t for c in incoming if c.connection.feedback.learning for n, t in c.feedback.items()}
        present = {**local.auxiliary, **feedback, **own}
        check_assigned(self._rule, local.local, present, values)
        for name in values:
            known = name if name in feedback else f"{region}:{name}"
            self._assigned.append(("gradient", region, name) if name in own else ("feedback_gradient", known))
        count = self._count() if values else None
        moved = {name: present[name] - value for name, value in values.items()}
        return moved if count is None else {name: change * count for name, change in moved.items()}

    def _count(self) -> Any:
        """Over how many positions the loss's mean runs, for rules whose steps are no sums over them; else None.

        The mean divides by it again. Of several micro-batches a step is the mean of theirs.
        """
        if self._loss is None or not self._loss.mean:
            return None
        names = [name for name in self._captured.outputs if name]
        output = self._captured.value(first_floating(self._captured, names))
        feature = self._loss.feature_dim(output.dim())
        return math.prod(size for dim, size in enumerate(output.shape) if dim == 0 or dim != feature)

    def _lesson(
        self, local: TracedLocal, values: Mapping[Value, torch.Tensor], e: torch.Tensor
    ) -> list[tuple[Value, torch.Tensor]]:
        """What the region's learner learns from: its input, and the target `t = z - step e`."""
        x, _, _, step, _ = self._captured.node(self._region.preactivation).args
        assert isinstance(x, fx.Node)
        t = torch.sub(local.z, e, alpha=float(step))  # type: ignore[arg-type]
        name = self._region.name
        return [(("lesson", name, "x"), values["captured", x.name]), (("lesson", name, "t"), t)]

    def _read(self, module: fx.GraphModule, results: Sequence[Value]) -> LocalUpdate:
        graph = module.graph
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        sizes_from_batch(graph, set(placeholders[1:]), placeholders[0], self._captured.batch)
        graph.eliminate_dead_code()
        self.drawn = take_noise(graph, self._region.name, self._rule)
        inputs = dict(zip((n.name for n in placeholders), self._reads.all_values, strict=True)) | self.drawn
        (returned,) = next(n for n in graph.nodes if n.op == "output").args
        named = {value: node.name for value, node in zip(results, returned, strict=True)}
        fakes = {value: node.meta["val"] for value, node in zip(results, returned, strict=True)}
        for node in placeholders:
            if not node.users:
                graph.erase_node(node)
                del inputs[node.name]
        return LocalUpdate(
            region=self._region.name,
            graph=graph,
            inputs=inputs,
            results=named,
            gradients=tuple(value[2] for value in results if value[0] == "gradient"),
            feedback_gradients=tuple(value[1] for value in results if value[0] == "feedback_gradient"),
            assigned=tuple(self._assigned),
            finish=self._finish(fakes),
            proportional=is_proportional(self._rule) and self._settling is None and not self._region.learner,
            constants={str(n.target): getattr(module, str(n.target)) for n in graph.nodes if n.op == "get_attr"},
        )

    def _finish(self, results: Mapping[Value, torch.Tensor]) -> dict[Value, fx.GraphModule]:
        """What the rule does to directions behind the loss's reduction, where it does anything."""
        found: dict[Value, fx.GraphModule] = {}
        if type(self._rule).finish is Rule.finish:
            return found
        for value, fake in results.items():
            if value[0] in ("gradient", "feedback_gradient"):
                fakes = (fake.detach(), torch.empty_like(fake))
                if self._rule.finish(*fakes) is fakes[0]:  # it lets this one pass as it is
                    continue
                module = trace(lambda d, p: [self._rule.finish(d, p)], fakes)
                if any(node.op == "call_function" for node in module.graph.nodes):
                    found[value] = module
        return found


def _in_types_of(directions: Mapping[str, torch.Tensor], moved: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Directions in the types of what they move, which under autocast is of full precision."""
    return {name: g.to(moved[name].dtype) if name in moved else g for name, g in directions.items()}
