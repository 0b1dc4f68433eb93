"""Builds a flat program by copying derived graphs behind one another and joining them by the names of values.

Every operator carries a *tag*: the kind and the region of the task that it belongs to. A program that runs on one
device is one task, and needs none of them; a schedule cuts by them.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.graph import ErrorGraph, FeedbackParameter
from altprop.ir.layouts import flatten_freely
from altprop.ir.local import LocalGraph
from altprop.ir.operators import writes
from altprop.ir.program import Program, Slot, add_input
from altprop.ir.updates import LocalUpdate, Value
from altprop.ir.walks import ancestors, positions
from altprop.ir.without_code import graph_module
from altprop.passes.flattening.draw_order import Draw, draw_in_order, draws_among

aten = torch.ops.aten

Tag = tuple[str, str]
"""Kind and region of a task: "F" a forward, "E" the loss, "U" errors and updates, "STEP" what is behind them."""
LOSS_TASK = "<loss>"
TARGET_TASK = "<target>"
PREAMBLE_TASK = "<preamble>"


class FlatBuilder:
    """One straight line of operators in the making.

    Attributes:
        values: nodes by their names across the program.
        tags: the task of each operator.
    """

    def __init__(self, graph: ErrorGraph) -> None:
        self.source = graph
        self.captured: CapturedGraph = graph.captured
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.values: dict[Value, fx.Node] = {}
        self.inputs: list[tuple[Slot, fx.Node]] = []
        self.tags: dict[fx.Node, Tag] = {}
        self._outputs: list[tuple[Slot, fx.Node]] = []
        self._places = positions(self.captured.graph.nodes)
        self._draws: list[Draw] = []
        self._add_placeholders()

    def _add_placeholders(self) -> None:
        for node in self.captured.graph.nodes:
            if node.op == "placeholder":
                made = self.placeholder(self._slot(node.name), node.name, node.meta.get("val"))
                self.values[("captured", node.name)] = made
        for name, parameter in self.source.feedback.items():
            fake = feedback_fake(self.captured, parameter)
            self.values[("feedback", name)] = self.placeholder(Slot("feedback", name), "feedback", fake)

        for region in self.source.regions:
            update = self.source.updates.get(region.name)
            if update is not None:
                self._add_noise(update)

    def _add_noise(self, update: LocalUpdate) -> None:
        for node in update.graph.nodes:
            key = update.inputs.get(node.name, ())
            if key[:1] == ("noise",) and key not in self.values:
                self.values[key] = self.placeholder(Slot("noise", key[1]), "noise", node.meta["val"])

    def _slot(self, placeholder: str) -> Slot:
        captured = self.captured
        if placeholder in captured.parameters:
            return Slot("parameter", captured.parameters[placeholder])
        if placeholder in captured.buffers:
            return Slot("buffer", captured.buffers[placeholder])
        return Slot("constant" if placeholder in captured.constants else "input", placeholder)

    def placeholder(self, slot: Slot, name: str, value: Any) -> fx.Node:
        """Adds an input; it stands before all operators."""
        node = add_input(self.graph, name, value)
        self.inputs.append((slot, node))
        return node

    def value(self, key: Value) -> fx.Node:
        """Returns the node of a value that was made before."""
        return self.values[key]

    def parameter(self, gradient: Slot) -> fx.Node:
        """Returns the input that a gradient moves."""
        wanted = Slot("feedback" if gradient.kind == "feedback_gradient" else "parameter", gradient.name)
        return next(node for slot, node in self.inputs if slot == wanted)

    @contextlib.contextmanager
    def task(self, kind: str, region: str) -> Iterator[None]:
        """Tags the operators that are added inside; one that has a tag already keeps it."""
        yield
        for node in reversed(self.graph.nodes):
            if node.op == "placeholder" or node in self.tags:
                break
            self.tags[node] = kind, region

    def preamble(self) -> None:
        """Copies the operators that no parameter feeds."""
        with self.task("F", PREAMBLE_TASK):
            nodes = [self.captured.node(name) for name in self.source.preamble]
            for node in nodes:
                made = self.graph.node_copy(node, lambda n: self.values[("captured", n.name)])
                self.values[("captured", node.name)] = made
        self._note_draws(nodes, [self.values[("captured", node.name)] for node in nodes])

    def _note_draws(self, nodes: Sequence[fx.Node], copies: Sequence[fx.Node]) -> None:
        self._draws += draws_among(nodes, copies, self._places)

    def forward(self, local: LocalGraph) -> None:
        """Copies the forward half of a region."""
        with self.task("F", local.region.name):
            self._forward(local)

    def _forward(self, local: LocalGraph) -> None:
        here: dict[fx.Node, fx.Node] = {}
        copies: list[fx.Node] = []
        for node in local.graph.nodes:
            if node.op == "placeholder":
                role = local.inputs[node.name]
                if role[0] == "value":
                    here[node] = self.values[("captured", role[1])]
            elif node.name in local.forward:
                here[node] = self._copy(node, here, local.region.name, "forward")
                copies.append(here[node])
                self.values[("forward", local.region.name, node.name)] = here[node]
        self._note_draws([self.captured.node(name) for name in local.region.nodes], copies)
        for role, made in local.results.items():
            if role[0] == "value" and made is not None:
                self.values[("captured", role[1])] = here[made]
                here[made].meta.get("custom", {}).setdefault("value", "activity")

    def _copy(self, node: fx.Node, here: dict[fx.Node, fx.Node], region: str, part: str) -> fx.Node:
        """Copies an operator and notes its region and part in `meta["custom"]`, which torch hands on when it traces."""
        made = self.graph.node_copy(node, here.__getitem__)
        made.meta["custom"] = {"region": region, "part": part}
        return made

    def update(self, update: LocalUpdate) -> None:
        """Copies a region's local update."""
        with self.task("U", update.region):
            self._update(update)

    def _update(self, update: LocalUpdate) -> None:
        here: dict[fx.Node, fx.Node] = {}
        neurons = {name for value, name in update.results.items() if value[0] == "error"}
        error = ancestors(node for node in update.graph.nodes if node.name in neurons)
        for node in update.graph.nodes:
            if node.op == "placeholder":
                here[node] = self.values[update.inputs[node.name]]
            elif node.op == "get_attr":
                here[node] = self._constant(update.constants[str(node.target)])
            elif node.op == "call_function":
                here[node] = self._copy(node, here, update.region, "error" if node in error else "update")
        named = {node.name: made for node, made in here.items()}
        for value, name in update.results.items():
            self.values[value] = named[name]
            if value[0] in ("error", "gradient"):
                said = "error" if value[0] == "error" else f"gradient of {value[2]}"
                named[name].meta.get("custom", {}).setdefault("value", said)

    def _constant(self, tensor: torch.Tensor) -> fx.Node:
        """Adds a tensor that a loss or a rule made out of nothing, under a name that no other has."""
        name = f"update_constant_{sum(node.op == 'get_attr' for node in self.graph.nodes)}"
        setattr(self.root, name, tensor)
        return self.graph.get_attr(name)

    def copy(self, module: fx.GraphModule, inputs: Mapping[str, fx.Node]) -> list[fx.Node]:
        """Copies a traced graph and the tensors that it holds; returns the nodes that it returned."""
        graph = module.graph
        here: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                here[node] = inputs[node.name]
            elif node.op == "get_attr":
                setattr(self.root, str(node.target), getattr(module, str(node.target)))
                here[node] = self.graph.node_copy(node, here.__getitem__)
            elif node.op == "call_function":
                here[node] = self.graph.node_copy(node, here.__getitem__)
        (returned,) = next(n for n in graph.nodes if n.op == "output").args
        return [here[node] for node in returned]

    def call(self, target: Any, *args: Any, value: Any = None, **kwargs: Any) -> fx.Node:
        """Adds an operator."""
        node = self.graph.call_function(target, args, kwargs)
        if value is not None:
            node.meta["val"] = value
        return node

    def buffers(self) -> None:
        """Writes the buffers' new values; that belongs to the task that makes the value."""
        by_name = {slot.name: node for slot, node in self.inputs if slot.kind == "buffer"}
        for value, buffer in self.captured.buffer_updates.items():
            made = self.values[("captured", value)]
            write = self.call(aten.copy_.default, by_name[buffer], made)
            self.tags[write] = self.tags.get(made, ("F", PREAMBLE_TASK))

    def outputs(self) -> None:
        """Returns what the model returns."""
        for name in self.captured.outputs:
            if name:
                self.result(Slot("output", name), self.values[("captured", name)])

    def errors(self) -> None:
        """Returns the root mean square of what the error neurons of each region hold."""
        for region in self.source.updates:
            error = self.values[("error", region)]
            number = error.meta["val"].new_empty(()) if "val" in error.meta else None
            mean = self.call(aten.mean.default, self.call(aten.mul.Tensor, error, error), value=number)
            self.result(Slot("error", region), self.call(aten.sqrt.default, mean, value=number))

    def result(self, slot: Slot, node: fx.Node) -> None:
        """Adds an output."""
        self._outputs.append((slot, node))

    def returned(self, slot: Slot) -> fx.Node | None:
        """Returns the node of an output, or None where it is not there yet."""
        return next((node for found, node in self._outputs if found == slot), None)

    def finish(self, name: str) -> Program:
        """Closes the program; inputs that nothing reads are left out."""
        self.graph.output(tuple(node for _, node in self._outputs))
        draw_in_order(self.graph, self._draws)
        used = prune(self.graph)
        inputs = []
        for slot, node in self.inputs:
            if slot.kind == "feedback":
                flatten_freely(node)
            if node in used:
                inputs.append((slot, node))
            else:
                self.graph.erase_node(node)
        order = {node: index for index, node in enumerate(self.graph.nodes)}
        inputs.sort(key=lambda item: order[item[1]])
        module = graph_module(self.root, self.graph)
        return Program(name, module, tuple(s for s, _ in inputs), tuple(s for s, _ in self._outputs))


def feedback_fake(captured: CapturedGraph, parameter: FeedbackParameter) -> torch.Tensor:
    """Returns a fake feedback parameter, on the device of the model's first floating parameter, and of its dtype."""
    values = [captured.value(name) for name in (*captured.parameters, *captured.inputs, *captured.outputs) if name]
    like = next(value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point())
    with captured.fake_mode:
        dtype = like.dtype if parameter.dtype == "float" else getattr(torch, parameter.dtype)
        return torch.empty(parameter.shape, dtype=dtype, device=like.device)


def contiguous_fake(captured: CapturedGraph, name: str) -> torch.Tensor:
    """Returns a fake tensor like a captured value, contiguous: the form in which the loss's gradient arrives."""
    value = captured.value(name)
    with captured.fake_mode:
        return torch.empty(tuple(value.shape), dtype=value.dtype, device=value.device)


def prune(graph: fx.Graph) -> set[fx.Node]:
    """Removes operators without effect; returns the nodes that are read."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not writes(node):
            graph.erase_node(node)
    return {node for node in graph.nodes if node.users}
