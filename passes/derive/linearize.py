"""Traces a region's forward together with its local vector-Jacobian products.

The three stages of the region (body, phi, tail) are differentiated one by one, each against its own cotangent, in
one trace, operator by operator. No derivative crosses the region's border. A layer with its relu, for instance:

    region "0" of the model         its local graph: the same, and a product for each cotangent
    t = t(weight)                   h = addmm(bias, x, t(weight)); z = relu(h)
    addmm = addmm(bias, x, t)       phi: threshold_backward(cot_z, z, 0)      body: mm(cot_h, weight), to x
    relu = relu(addmm)              parameters: mm(t(cot_h), x), to weight; sum(cot_h, 0), to bias
"""

import dataclasses
import operator
import re
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import fx

from altprop.ir.batch_facts import BatchFacts
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.decisions import noting
from altprop.ir.errors import CompileError
from altprop.ir.local import BODY, PARAMETERS, PHI, PRODUCTS, TAIL, LocalGraph, Role
from altprop.ir.operators import is_fill, is_pointwise, short_name, writes
from altprop.ir.region import Region
from altprop.ir.torch_private import enable_python_dispatcher
from altprop.ir.tracing import trace
from altprop.ir.walks import closure
from altprop.passes.derive.decompositions import DECOMPOSITIONS
from altprop.passes.derive.interpret import run_nodes
from altprop.passes.derive.keep_whole_kernels import WHOLE, free_strides_of_attention
from altprop.passes.derive.trace_sizes import sizes_from_batch

Tensors = list[torch.Tensor]


def linearize(captured: CapturedGraph, region: Region, products: Set[str] = frozenset(PRODUCTS)) -> LocalGraph:
    """Derives the local graph of one region.

    Args:
        captured: the forward graph.
        region: one of its regions.
        products: which of `PRODUCTS` are wanted; what none of them needs is not differentiated.

    Raises:
        CompileError: an operator of the region has no derivative, and a product needs one.
    """
    return _Linearizer(captured, region, frozenset(products)).trace()


@dataclasses.dataclass
class _Results:
    """Collects the values of a trace by role."""

    roles: list[Role] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)

    def add(self, role: Role, value: Any) -> None:
        self.roles.append(role)
        self.values.append(value)


class _Linearizer:
    def __init__(self, captured: CapturedGraph, region: Region, products: frozenset[str]) -> None:
        self.captured = captured
        self.region = region
        self.products = products
        self.nodes = [captured.node(name) for name in region.nodes]
        self.prologue = [captured.node(name) for name in region.prologue]
        self.external = self._external()
        self.theta = [n for n in self.external if captured.is_trainable(n)]
        sources = set(region.sources)
        self.sources = [n for n in self.external if n.name in sources and _floating(n) and n.name in captured.live]
        self.h = captured.node(region.preactivation)
        self.z = captured.node(region.activity)
        self.ports = [captured.node(name) for name in region.ports]
        self.outputs = [captured.node(name) for name in region.outputs if _floating(captured.node(name))]
        phi, tail = set(region.phi), set(region.tail)
        self.phi = [n for n in self.nodes if n.name in phi]
        self.tail = [n for n in self.nodes if n.name in tail and n.name not in phi]
        self.body = [n for n in self.nodes if n.name not in phi and n.name not in tail]

    def _external(self) -> list[fx.Node]:
        """Values that the region reads: placeholders, other regions' values, sizes; the batch anchor first."""
        inside = set(self.nodes) | set(self.prologue)
        found = dict.fromkeys(s for n in (*self.prologue, *self.nodes) for s in n.all_input_nodes)
        anchor = self.captured.node(self.captured.inputs[0])
        return list(dict.fromkeys([anchor, *(n for n in found if n not in inside)]))

    def trace(self) -> LocalGraph:
        restrided = next((n for n in self.nodes if n.target is torch.ops.aten.as_strided.default), None)
        if restrided is not None:
            raise CompileError(
                f'region "{self.region.name}" restrides a tensor by hand ({restrided.name}, as_strided): what autograd '
                "makes of that depends on memory, not on values. Use reshape, slices or unfold."
            )
        tensors = [n for n in self.external if isinstance(n.meta["val"], torch.Tensor)]
        cotangents = self._cotangents()
        fakes = self.captured.forms.distinct([*(n.meta["val"] for n in tensors), *(value for _, value in cotangents)])
        results = _Results()

        def joint(*args: Any) -> list[Any]:
            results.roles.clear()
            results.values.clear()
            known = {n: n.meta["val"] for n in self.external}
            known |= dict(zip(tensors, args, strict=False))
            cots = {role: value for (role, _), value in zip(cotangents, args[len(tensors) :], strict=True)}
            self._joint(known, cots, results)
            return [value for value in results.values if isinstance(value, torch.Tensor)]

        module = self._make(joint, fakes)
        roles: list[Role] = [("value", n.name) for n in tensors] + [role for role, _ in cotangents]
        return self._read(module, roles, results)

    def _make(self, joint: Any, fakes: Sequence[Any]) -> fx.GraphModule:
        facts = BatchFacts()
        try:
            with torch.enable_grad(), enable_python_dispatcher(), self.captured.fake_mode, noting(facts):
                made = trace(joint, fakes, DECOMPOSITIONS)
                if any(writes(node) for node in made.graph.nodes):  # some derivatives write into tensors of their own
                    pure = torch.func.functionalize(made, remove="mutations")
                    made = trace(pure, fakes, DECOMPOSITIONS)
        except CompileError:
            raise
        except Exception as error:  # derivatives fail in as many ways as there are operators
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if type(error).__name__ == "UnsupportedOperatorException":
                first = f"its derivative runs {first}, of whose results torch cannot tell the form."
            if re.search(r"data-dependent|Could not guard", first):
                first = "a derivative chooses by the numbers in a tensor, which a graph of operators cannot."
            if "not tracked with proxy" in first:
                first = "a derivative computes with the size of the batch, which a graph of operators cannot."
            raise CompileError(
                f'region "{self.region.name}" cannot be differentiated locally: {first} '
                "Freeze its parameters, or replace the operator."
            ) from error
        written = next((node for node in made.graph.nodes if writes(node)), None)
        if written is not None:
            raise CompileError(
                f'region "{self.region.name}": its derivative writes in place ({written.name}): '
                "freeze its parameters, or replace the operator."
            )
        self._refuse_fixed_batch(facts)
        free_strides_of_attention(made.graph)
        return made

    def _refuse_fixed_batch(self, facts: BatchFacts) -> None:
        """Tracing a derivative may bind the batch to that of the example; what comes out runs on no other."""
        batch = self.captured.batch
        if isinstance(batch, torch.SymInt) and facts.bind_to_one:
            calls = (node for node in self.nodes if node.op == "call_function" and not is_pointwise(node))
            named = ", ".join(dict.fromkeys(filter(None, map(short_name, calls)))) or "an operator"
            raise CompileError(
                f'region "{self.region.name}" has operators ({named}) of which torch writes a derivative for a batch '
                f"of {batch.node.hint} alone: along the batch use sums, means and products, and torch.where in place "
                "of choices."
            )

    def _cotangents(self) -> list[tuple[Role, torch.Tensor]]:
        def like(node: fx.Node) -> torch.Tensor:
            with self.captured.fake_mode:
                return torch.empty_like(node.meta["val"].detach(), memory_format=torch.preserve_format)

        found: list[tuple[Role, torch.Tensor]] = [(("cot_h",), like(self.h))]
        found += [(("cot_port", k), like(n)) for k, n in enumerate(self.ports)]
        found += [(("cot_z",), like(self.z))]
        found += [(("cot_out", k), like(n)) for k, n in enumerate(self.outputs)]
        return found

    def _joint(self, known: dict[fx.Node, Any], cots: dict[Role, torch.Tensor], results: _Results) -> None:
        theta = [known[n] for n in self.theta]
        sources = [known[n] for n in self.sources]
        stored = self._body(known, theta, sources, cots, results)
        z = self._activate(stored, cots, results)
        self._tail(known, stored, z, sources, cots, results)

    def _body(
        self,
        known: dict[fx.Node, Any],
        theta: Tensors,
        sources: Tensors,
        cots: dict[Role, torch.Tensor],
        results: _Results,
    ) -> dict[fx.Node, Any]:
        updates = [n for n in self.body if n.name in self.captured.buffer_updates]
        others = [n for n in self.body if self._leaves(n) and n not in (self.h, *self.ports)]

        def body(theta: Tensors, sources: Tensors) -> tuple[Tensors, list[Any]]:
            values = known | dict(zip(self.theta, theta, strict=False)) | dict(zip(self.sources, sources, strict=False))
            values = run_nodes([*self.prologue, *self.body], values, WHOLE)
            return [values[n] for n in (self.h, *self.ports)], [values[n] for n in (*updates, *others)]

        theta = theta if PARAMETERS in self.products else []
        sources = sources if BODY in self.products else []
        heads, pull, aux = _vjp(body, theta, sources)
        given = [cots[("cot_h",)], *(cots[("cot_port", k)] for k in range(len(self.ports)))]
        grad_theta, grad_sources = pull(given)
        for node, value in zip((*updates, *others), aux, strict=True):
            results.add(("value", node.name), value)
        for node, value in zip((self.h, *self.ports), heads, strict=True):
            results.add(("value", node.name), value)
        for k, value in enumerate(grad_theta):
            results.add(("theta", k), value)
        for k, value in enumerate(grad_sources):
            results.add(("source", k), value)
        return dict(zip((self.h, *self.ports, *others), [*heads, *aux[len(updates) :]], strict=True))

    def _leaves(self, node: fx.Node) -> bool:
        """Whether a body value beside `h` and the ports is read later: integers, sizes, masks."""
        later = {*self.tail, *self.phi}
        return node.name in self.region.outputs or any(user in later for user in node.users)

    def _activate(self, stored: dict[fx.Node, Any], cots: dict[Role, torch.Tensor], results: _Results) -> torch.Tensor:
        if not self.phi:
            results.add(("h",), cots[("cot_z",)])
            return stored[self.h]

        def phi(h: torch.Tensor) -> torch.Tensor:
            return run_nodes(self.phi, {self.h: h}, WHOLE)[self.z]

        if PHI in self.products:
            z, pull, *_ = torch.func.vjp(phi, stored[self.h])
            results.add(("h",), pull(cots[("cot_z",)])[0])
        else:
            z = phi(stored[self.h])
        results.add(("value", self.z.name), z)
        return z

    def _tail(
        self,
        known: dict[fx.Node, Any],
        stored: dict[fx.Node, Any],
        z: torch.Tensor,
        sources: Tensors,
        cots: dict[Role, torch.Tensor],
        results: _Results,
    ) -> None:
        ports = [stored[n] for n in self.ports]
        rest = [n for n in self.tail if self._is_kept(n) and n not in self.outputs]

        def tail(z: torch.Tensor, ports: Tensors, sources: Tensors) -> tuple[Tensors, list[Any]]:
            values = {**known, **stored}
            values |= dict(zip(self.sources, sources, strict=True))
            values |= dict(zip(self.ports, ports, strict=True))
            values[self.z] = z
            values = run_nodes(self.tail, values, WHOLE)
            return [values[n] for n in self.outputs], [values[n] for n in rest]

        made, others = self._differentiate_tail(tail, (z, ports, sources), cots, results)
        for node, value in zip(self.outputs, made, strict=True):
            if node in self.tail:
                results.add(("value", node.name), value)
        for node, value in zip(rest, others, strict=True):
            results.add(("value", node.name), value)

    def _is_kept(self, node: fx.Node) -> bool:
        """Whether a value of the tail leaves the region, or becomes a buffer, as running statistics do."""
        return node.name in self.region.outputs or node.name in self.captured.buffer_updates

    def _differentiate_tail(
        self, tail: Any, at: tuple[torch.Tensor, Tensors, Tensors], cots: dict[Role, torch.Tensor], results: _Results
    ) -> tuple[Tensors, list[Any]]:
        """Runs the tail, and its products if they are wanted. Returns the region's outputs and what else leaves it."""
        if TAIL not in self.products:
            made, rest = tail(*at)
            return made, rest
        pulled: Any = torch.func.vjp(tail, *at, has_aux=True)
        made, pull, rest = pulled
        grad_z, grad_ports, grad_sources = pull([cots[("cot_out", k)] for k in range(len(self.outputs))])
        results.add(("z",), grad_z)
        for k, value in enumerate(grad_ports):
            results.add(("tail_port", k), value)
        for k, value in enumerate(grad_sources):
            results.add(("tail_source", k), value)
        return made, rest

    def _read(self, module: fx.GraphModule, roles: list[Role], results: _Results) -> LocalGraph:
        graph = module.graph
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        sizes_from_batch(graph, set(placeholders[1:]), placeholders[0], self.captured.batch)
        inputs = {n.name: role for n, role in zip(placeholders, roles, strict=True)}
        (returned,) = next(n for n in graph.nodes if n.op == "output").args
        tensor_roles = [r for r, v in zip(results.roles, results.values, strict=True) if isinstance(v, torch.Tensor)]
        made: dict[Role, fx.Node | None] = dict(zip(tensor_roles, returned, strict=True))
        forward = _with_items(closure([n for role, n in made.items() if role[0] == "value" and n is not None]))
        parameters = {n for n in placeholders if self._is_parameter(inputs[n.name])}
        return LocalGraph(
            region=self.region,
            graph=graph,
            inputs=inputs,
            results={role: node if role[0] == "value" else _unless_zero(node) for role, node in made.items()},
            forward=frozenset(n.name for n in forward),
            parameters_only=_functions_of(forward, parameters),
            theta=tuple(self.captured.parameters[n.name] for n in self.theta),
            theta_values=tuple(n.name for n in self.theta),
            sources=tuple(n.name for n in self.sources),
            products=self.products,
        )

    def _is_parameter(self, role: Role) -> bool:
        return role[0] == "value" and role[1] in self.captured.parameters


def _vjp(body: Any, theta: Tensors, sources: Tensors) -> tuple[Tensors, Any, list[Any]]:
    """`torch.func.vjp` with further results; where nothing is differentiated it runs the function alone."""
    if not theta and not sources:
        heads, aux = body(theta, sources)
        return heads, lambda _: ([], []), aux
    made: Any = torch.func.vjp(body, theta, sources, has_aux=True)
    heads, pull, aux = made
    return heads, pull, aux


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _with_items(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Adds the other results of operators that have several, such as a dropout's mask."""
    found = dict.fromkeys(nodes)
    for node in nodes:
        found |= dict.fromkeys(user for user in node.users if user.target is operator.getitem)
    return [node for node in nodes[0].graph.nodes if node in found]


def _unless_zero(node: fx.Node | None) -> fx.Node | None:
    """A product that is zero by construction is none at all."""
    return None if node is not None and is_fill(node, 0) else node


def _functions_of(nodes: Sequence[fx.Node], starts: set[fx.Node]) -> frozenset[str]:
    found = set(starts)
    for node in nodes:
        if node.op == "call_function" and node.all_input_nodes and all(s in found for s in node.all_input_nodes):
            found.add(node)
    return frozenset(n.name for n in found if n.op == "call_function")
