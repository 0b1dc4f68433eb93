"""The captured forward graph.

A *captured graph* is the model's forward pass as a functional `torch.fx.Graph` of ATen operators. Every node
carries its fake value in `node.meta["val"]`. Parameters, buffers, constants and user inputs are placeholders.
The *preamble* is the part of the forward that no trainable parameter feeds (masks, positions, sizes).
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.batch_facts import BatchFacts
from altprop.ir.forms import Forms
from altprop.ir.reads import Read
from altprop.ir.torch_private import pytree
from altprop.ir.walks import ancestors


def live_nodes(graph: fx.Graph, outputs: Iterable[str]) -> set[str]:
    """Returns the names of the nodes that lead to some outputs without passing a `detach`."""
    wanted = set(outputs)

    def is_live(node: fx.Node) -> bool:
        return node.op in ("placeholder", "call_function") and node.target != torch.ops.aten.detach.default

    return {node.name for node in ancestors((node for node in graph.nodes if node.name in wanted), is_live)}


def module_of(call: str) -> str:
    """Returns the path of the module of a call, without the number of the call."""
    return call.partition("@")[0]


@dataclasses.dataclass(frozen=True)
class ModuleCall:
    """One call of a module: its path, `"layer1.0"`, the second call `"fc@1"`, and its class."""

    path: str
    kind: str

    @property
    def module(self) -> str:
        """The module's own path."""
        return module_of(self.path)


@dataclasses.dataclass(frozen=True)
class CapturedGraph:
    """What `torch.export` saw of one model in one mode.

    Attributes:
        graph: the functional forward graph; its output node returns buffer updates, then user outputs.
        parameters: placeholder name to parameter name; tied parameters share the first name.
        trainable: names of the parameters that require grad.
        buffers: placeholder name to buffer name.
        constants: placeholder name to tensor, for tensors that the forward makes out of nothing.
        inputs: placeholder names of the user's inputs, in the order of the flattened call.
        outputs: names of the values that the model returns, flattened; `""` for a constant.
        constant_outputs: value of each returned constant, by its place in `outputs`.
        buffer_updates: value name to the name of the buffer that it replaces.
        in_spec: tree of the call, `(args, kwargs)`.
        out_spec: tree of the result.
        modules: node name to the module calls around it, outermost first.
        batch: size of the batch, a `SymInt`, or an int where the model fixes it.
        fake_mode: the fake-tensor mode of all values.
        forms: what was derived from graphs of this mode; see `altprop.ir.forms`.
        reads: what forward read that is no tensor; the graph has what followed from it.
        facts: what forward asked of the size of the batch.
    """

    graph: fx.Graph
    parameters: Mapping[str, str]
    trainable: frozenset[str]
    buffers: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constant_outputs: Mapping[int, Any]
    buffer_updates: Mapping[str, str]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    modules: Mapping[str, tuple[ModuleCall, ...]]
    batch: Any
    fake_mode: Any
    forms: Forms = dataclasses.field(default_factory=Forms)
    reads: tuple[Read, ...] = ()
    facts: BatchFacts = dataclasses.field(default_factory=BatchFacts)

    @property
    def is_dynamic(self) -> bool:
        """Whether it serves batches of more sizes than one."""
        return isinstance(self.batch, torch.SymInt)

    def node(self, name: str) -> fx.Node:
        """Returns the node called `name`."""
        return self.nodes[name]

    @property
    def nodes(self) -> dict[str, fx.Node]:
        """All nodes by name, in topological order."""
        cached: dict[str, fx.Node] | None = self.__dict__.get("_nodes")
        if cached is None:
            cached = {node.name: node for node in self.graph.nodes}
            self.__dict__["_nodes"] = cached
        return cached

    @property
    def live(self) -> frozenset[str]:
        """Names of the nodes that a gradient at the outputs would reach: not what stands behind `detach`."""
        cached: frozenset[str] | None = self.__dict__.get("_live")
        if cached is None:
            cached = frozenset(live_nodes(self.graph, self.outputs))
            self.__dict__["_live"] = cached
        return cached

    def value(self, name: str) -> Any:
        """Returns the fake value of the node called `name`."""
        return self.nodes[name].meta.get("val")

    def shape_text(self, value: torch.Tensor) -> str:
        """Returns the shape of a fake value for a message: the batch is called N."""
        sizes = [self.with_batch_named(str(size)) for size in value.shape]
        return f"({', '.join(sizes)})"

    def with_batch_named(self, text: str) -> str:
        """Returns what torch says with N in place of its symbol for the batch, such as "s77"."""
        return re.sub(rf"\b{re.escape(str(self.batch))}\b", "N", text) if self.is_dynamic else text

    def first_line(self, error: Exception) -> str:
        """Returns the first line of what an error says, for a message."""
        lines = str(error).strip().splitlines()
        return self.with_batch_named(lines[0]).rstrip(".") if lines else type(error).__name__

    def call_of(self, node: fx.Node) -> str:
        """Returns the innermost module call that made `node`, `""` for the root."""
        calls = self.modules.get(node.name, ())
        return calls[-1].path if calls else ""

    def is_trainable(self, node: fx.Node) -> bool:
        """Whether `node` is the placeholder of a trainable parameter."""
        return node.op == "placeholder" and self.parameters.get(node.name) in self.trainable
