"""What a rule's functions see of a region while they are traced."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.local import LocalGraph, Role
from altprop.ir.loss import Loss
from altprop.ir.region import Region
from altprop.ir.repeat_operator import SHORT
from altprop.ir.walks import closure
from altprop.passes.cut.operator_kinds import is_tensor
from altprop.passes.derive.by_unit import unit_dim
from altprop.passes.derive.interpret import run_nodes
from altprop.passes.derive.local_products import Known, evaluate
from altprop.passes.derive.loss_of_prediction import loss_of_prediction
from altprop.passes.derive.mirror import Mirror, mirrors_of
from altprop.passes.derive.names_read import NameWatch
from altprop.passes.derive.run_again import run_again
from altprop.passes.derive.trace_loop import loop

_FULL_BYTES = 4
Step = Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]


class TracedLocal:
    """One region under trace; see `altprop.rules.Local`.

    Exact pathways (forward-shaped feedback, the loss) also bring cotangents to the region's ports and outputs; they
    are kept here, beside the message at the activity, and enter the products with it. `instead` is what an error passes
    in the place of some of the region's own weights.
    """

    def __init__(
        self,
        captured: CapturedGraph,
        local: LocalGraph,
        known: Known,
        auxiliary: Mapping[str, torch.Tensor] | None = None,
        loss: Loss | None = None,
        watch: NameWatch | None = None,
    ) -> None:
        self._region: Region = local.region
        self._watch = watch or NameWatch()
        self.local = local
        self.known = known
        self.auxiliary: Mapping[str, torch.Tensor] = auxiliary or {}
        self.instead: Mapping[str, torch.Tensor] = {}
        self.drawn: torch.Tensor | None = None
        self.state: Mapping[str, torch.Tensor] = {}
        self.phase, self.nudge = "", 0.0
        self.phases: Callable[[str], TracedLocal] | None = None
        self._tail_known: Known | None = None
        self._loss = loss
        self.ending: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.port_cotangents: dict[int, torch.Tensor] = {}
        self.out_cotangents: dict[int, torch.Tensor] = {}
        self._captured = captured
        self._draws: dict[str, torch.Tensor] = {}
        outputs = [captured.node(name) for name in self._region.outputs]
        self._outputs = [n.name for n in outputs if n.meta["val"].is_floating_point()]

    @property
    def region(self) -> Region:
        """The region; that its names are read is noted."""
        region: Region = self._watch.of(self._region)
        return region

    @property
    def noise(self) -> torch.Tensor:
        """Standard normal numbers of the activity's shape.

        Raises:
            RuleError: the rule's wiring does not say that it draws noise.
        """
        if self.drawn is None:
            raise RuleError(
                f'region "{self._region.name}": its rule reads `local.noise`, but its wiring does not say '
                "`draws_noise=True`."
            )
        return self.drawn

    @property
    def h(self) -> torch.Tensor:
        """The pre-activation."""
        return self._value(self._region.preactivation)

    @property
    def z(self) -> torch.Tensor:
        """The activity."""
        return self._value(self._region.activity)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The region's parameters by name."""
        return {name: self.value(place) for name, place in zip(self.local.theta, self.local.theta_values, strict=True)}

    def value(self, name: str) -> torch.Tensor:
        """A value that the region reads."""
        node = next(n for n in self.local.graph.nodes if self._reads(n, name))
        value: torch.Tensor = self.known[node]
        return value

    def _reads(self, node: fx.Node, name: str) -> bool:
        return node.op == "placeholder" and self.local.inputs[node.name] == ("value", name)

    def at(self, node: fx.Node) -> Any:
        """A value of the captured graph that the region reads, or makes of parameters alone; a size as it is."""
        if node.name in self._region.prologue:
            return run_nodes([node], {source: self.at(source) for source in node.all_input_nodes})[node]
        return self.value(node.name) if isinstance(node.meta["val"], torch.Tensor) else node.meta["val"]

    def mirrors(self, parameters: Iterable[str]) -> dict[str, Mirror]:
        """The operators that some of the region's parameters belong to."""
        return mirrors_of(self._captured, self._region, parameters)

    def known_inputs(self, instead: Mapping[str, torch.Tensor]) -> dict[fx.Node, Any]:
        """Values of the placeholders alone, some of them replaced: what the forward is made of anew."""
        found = {n: v for n, v in self.known.items() if n.op == "placeholder"}
        for node in self.local.graph.nodes:
            for name, value in instead.items():
                if self._reads(node, name):
                    found[node] = value
        return found

    @property
    def placeholders(self) -> list[str]:
        """Names of all values that the region reads, its tail included."""
        return [role[1] for role in self.local.inputs.values() if role[0] == "value"]

    @property
    def sources(self) -> dict[str, torch.Tensor]:
        """What the pre-activation is computed from beside parameters and buffers, by name."""
        start = self.local.results[("value", self._region.preactivation)]
        read = closure([start]) if start is not None else []
        names = [self.local.inputs[n.name][1] for n in read if n.op == "placeholder"]
        own = {*self._captured.parameters, *self._captured.buffers, *self._captured.constants}
        tensors = [name for name in dict.fromkeys(names) if name not in own and is_tensor(self._captured.node(name))]
        return {name: self.value(name) for name in tensors}

    def draw(self, name: str, *sizes: int) -> torch.Tensor:
        """Standard normal numbers; the same for a name."""
        if name not in self._draws:
            self._draws[name] = torch.randn(sizes, dtype=self.h.dtype, device=self.h.device)
        return self._draws[name]

    @property
    def unit_dim(self) -> int | None:
        """The dimension of units, where the region is one dense layer or convolution."""
        return unit_dim(self._captured, self._region)

    def moved(
        self, parameters: Mapping[str, torch.Tensor] | None = None, sources: Mapping[str, torch.Tensor] | None = None
    ) -> "TracedLocal":
        """The region at other parameters, or other inputs; what is not named is as it was."""
        places, wanted = zip(self.local.theta, self.local.theta_values, strict=True), parameters or {}
        instead = {place: wanted[name] for name, place in places if name in wanted}
        forward = [node for node in self.local.graph.nodes if node.name in self.local.forward]
        given = self.known_inputs({**instead, **(sources or {})})
        known = run_again(self._region.name, forward, given, self.known)
        made = TracedLocal(self._captured, self.local, known, self.auxiliary, self._loss, self._watch)
        made.drawn, made.ending, made._draws = self.drawn, self.ending, self._draws
        made.state, made.phase, made.nudge, made.phases = self.state, self.phase, self.nudge, self.phases
        return made

    def after(self, phase: str) -> "TracedLocal":
        """The region as a phase left it."""
        if self.phases is None:
            raise RuleError(f'region "{self._region.name}": its net does not settle, so there is no phase "{phase}".')
        return self.phases(phase)

    def show(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Has others read another activity, and errors come back through the tail at that; returns the outputs."""
        start = self.local.results[("value", self._region.activity)]
        forward = [node for node in self.local.graph.nodes if node.name in self.local.forward]
        later = _behind(forward, start)
        known = {n: v for n, v in self.known.items() if n not in later} | {start: z}
        self._tail_known = shown = run_again(self._region.name, forward, known, self.known)  # type: ignore[arg-type]
        ends = {name: self.local.results[("value", name)] for name in self._region.outputs}
        return {name: shown[node] for name, node in ends.items() if node is not None}

    def run(
        self, parameters: Mapping[str, torch.Tensor] | None = None, sources: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The pre-activation at other parameters, or other inputs."""
        return self.moved(parameters, sources).h

    def repeat(self, step: Step, state: Mapping[str, torch.Tensor], times: int) -> dict[str, torch.Tensor]:
        """Runs a function on what it returned before; many rounds as one operator."""
        here = dict(state)
        if times <= SHORT:
            for _ in range(times):
                here = self._round(step, here)
            return here
        self._round(step, here)  # what a round draws is drawn here, once; all else of this is never computed

        def round_of(*given: torch.Tensor) -> list[torch.Tensor]:
            return list(self._round(step, dict(zip(here, given, strict=False))).values())

        made = loop(round_of, list(here.values()), [self.z], times, self._captured, anchor=len(here))
        return dict(zip(here, made, strict=True))

    def _round(self, step: Step, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = step(dict(state))
        forms, wanted = ({name: (one.shape, one.dtype) for name, one in some.items()} for some in (made, state))
        if forms != wanted:
            raise RuleError(
                f'region "{self._region.name}": a round of local.repeat returned {_told(made)}; it takes '
                f"{_told(state)}, and has to return the same names, shapes and types."
            )
        return {name: made[name] for name in state}

    def outputs_at(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """The region's outputs, had its activity been `z`."""
        start = self.local.results[("value", self._region.activity)]
        outputs = {name: self.local.results[("value", name)] for name in self._region.outputs}
        if start is not None and self.known.get(start) is z:
            return {name: self.known[node] for name, node in outputs.items() if node is not None}
        nodes = closure([node for node in outputs.values() if node is not None])
        later = _behind(nodes, start)
        known: dict[fx.Node, Any] = {n: v for n, v in self.known.items() if n not in later}
        if start is not None:
            known[start] = z
        known = run_again(self._region.name, nodes, known, self.known)
        return {name: known[node] for name, node in outputs.items() if node is not None}

    def _value(self, name: str) -> torch.Tensor:
        node = self.local.results[("value", name)]
        value: torch.Tensor = self.known[node]  # type: ignore[index]
        return value

    def phi(self, h: torch.Tensor) -> torch.Tensor:
        """Applies the activation."""
        nodes = [self._captured.node(name) for name in self._region.phi]
        start = self._captured.node(self._region.preactivation)
        activity: torch.Tensor = run_nodes(nodes, {start: h})[self._captured.node(self._region.activity)]
        return activity

    def phi_change(self, d: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """How far the activity falls where the pre-activation falls by `scale * d`."""
        operators = [self._captured.node(name).target for name in self._region.phi]
        if not operators:
            return d * scale
        if operators == [torch.ops.aten.relu.default]:
            # Below zero z - h says how far; no further than down to zero.
            return torch.minimum(self.z, torch.add(self.z - self.h, d, alpha=scale))
        if self.h.element_size() < _FULL_BYTES:
            wide = self.h.float()
            return (self.phi(wide) - self.phi(torch.sub(wide, d.float(), alpha=scale))).to(self.h.dtype)
        return self.z - self.phi(torch.sub(self.h, d, alpha=scale))

    def phi_vjp(self, d: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """Takes an error at the activity to the pre-activation."""
        if h is not None:
            pulled: torch.Tensor = torch.func.vjp(self.phi, h)[1](d)[0]
            return pulled
        made = evaluate(self.local, [("h",)], self.known, {("cot_z",): d})[("h",)]
        return torch.zeros_like(d) if made is None else made

    def parameter_vjp(self, e: torch.Tensor) -> dict[str, torch.Tensor]:
        """Local vector-Jacobian product with respect to the parameters."""
        roles = [("theta", k) for k in range(len(self.local.theta))]
        made = evaluate(self.local, roles, self.known, self.body_cotangents(e), self.instead)
        gradients: dict[str, torch.Tensor] = {}
        for k, name in enumerate(self.local.theta):
            gradient = made[("theta", k)]
            if gradient is not None:
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return gradients

    def loss(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The network's loss of another prediction, as a sum over samples."""
        assert self._loss is not None
        if not self._captured.out_spec.is_leaf() and self._loss.structured:
            raise RuleError(
                f'region "{self.local.region.name}": the rule asks what the loss says of one prediction, and the model '
                "returns several, or a structure: use a rule that takes the loss at the model's outputs, such as dfa."
            )
        if self.ending is not None:
            prediction = self.ending(prediction)
            target = target.reshape(prediction.shape)
        return loss_of_prediction(self._captured, self._loss, prediction, target)

    def body_cotangents(self, e: torch.Tensor) -> dict[Role, torch.Tensor]:
        """Cotangents of the body: `e` at the pre-activation, and what exact pathways brought to the ports."""
        given: dict[Role, torch.Tensor] = {("cot_h",): e}
        for k, name in enumerate(self._region.ports):
            cotangent = self.port_cotangents.get(k)
            given[("cot_port", k)] = torch.zeros_like(self._value(name)) if cotangent is None else cotangent
        return given

    def zero_output(self, index: int) -> torch.Tensor:
        """Returns zeros of the shape of an output."""
        return torch.zeros_like(self._value(self._outputs[index]))

    def receive(self, cotangents: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Takes cotangents at the region's outputs to the activity, through the tail.

        Args:
            cotangents: by name of the output.
        """
        for k, name in enumerate(self._outputs):
            if name in cotangents:
                self.out_cotangents[k] = _sum(self.out_cotangents.get(k), cotangents[name])
        made = self.through_tail(cotangents)
        for role, value in made.items():
            if role[0] == "tail_port":
                self.port_cotangents[role[1]] = _sum(self.port_cotangents.get(role[1]), value)
        return made[("z",)]

    def through_tail(self, cotangents: Mapping[str, torch.Tensor]) -> dict[Role, torch.Tensor]:
        """Returns what cotangents at the region's outputs are at the activity, and at those ports that they reach."""
        given: dict[Role, torch.Tensor] = {}
        for k, name in enumerate(self._outputs):
            cotangent = cotangents.get(name)
            given[("cot_out", k)] = torch.zeros_like(self._value(name)) if cotangent is None else cotangent
        ports = [("tail_port", k) for k in range(len(self._region.ports))]
        made = evaluate(self.local, [("z",), *ports], self._tail_known or self.known, given)
        found = {role: value for role, value in made.items() if value is not None}
        return found if ("z",) in found else {**found, ("z",): torch.zeros_like(self.z)}


def _told(state: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(one.shape)} {one.dtype}" for name, one in state.items()) or "nothing"


def _sum(one: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    return other if one is None else one + other


def _behind(nodes: Sequence[fx.Node], start: fx.Node | None) -> set[fx.Node]:
    """Those of some nodes, in topological order, that depend on one."""
    found = {start}
    for node in nodes:
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    return {node for node in found if node is not None and node is not start}
