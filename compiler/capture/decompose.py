"""Decomposes an exported program into plain operators, in one trace over the export's own fake values.

torch's own `run_decompositions` traces the program twice, behind a layer that turns writes into new values, and writes
its signature anew: three quarters of what a capture took. Here the program is traced once as it is. What it writes in
place (an activation with `inplace=True`, the statistics of a batch norm) is then rewritten on the graph; see
`altprop.compiler.capture.functional`. A program that writes in a way that cannot be seen through there, or that holds
control flow, goes torch's way.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec, TensorArgument
from torch.fx import traceback

from altprop.compiler.capture.functional import NotFunctionalError, functional
from altprop.compiler.capture.known_values import known_value, record
from altprop.ir.autocast import casts
from altprop.ir.batch_sizes import BatchSizes
from altprop.ir.operators import short_name
from altprop.ir.torch_private import (
    FakeTensor,
    HigherOrderOperator,
    enable_python_dispatcher,
    override_composites,
    pytree,
    split_decompositions,
)
from altprop.ir.tracing import trace
from altprop.ir.without_code import without_code

log = logging.getLogger("altprop.capture")

Table = Mapping[Any, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Decomposed:
    """A program of plain operators that writes nothing in place.

    Attributes:
        graph: placeholders, operators, and an output node that returns new buffers, then what the model returns.
        inputs: what each placeholder stands for, in order.
        outputs: what each result is, in order.
        constants: tensors by the names that `inputs` gives them.
        in_spec: tree of the call, `(args, kwargs)`.
        out_spec: tree of what the model returns.
    """

    graph: fx.Graph
    inputs: Sequence[InputSpec]
    outputs: Sequence[OutputSpec]
    constants: Mapping[str, Any]
    in_spec: pytree.TreeSpec | None
    out_spec: pytree.TreeSpec | None


def decompose(program: torch.export.ExportedProgram, table: Table) -> Decomposed:
    """Decomposes an exported program.

    Args:
        program: what `torch.export.export` returned.
        table: by operator, the function that takes it apart; composite operators that are not in it stay whole.
    """
    if _is_straight(program.graph_module):
        try:
            return _Decomposer(program, table).run()
        except NotFunctionalError as reason:
            log.info("capture: decomposed by torch, since %s", reason)
        except Exception as error:  # torch's own way says what is wrong with the model, or knows better
            log.info("capture: decomposed by torch, after %s", type(error).__name__)
    return decompose_by_torch(program, table)


def decompose_by_torch(program: torch.export.ExportedProgram, table: Table) -> Decomposed:
    """Decomposes an exported program by `run_decompositions`: slower, and for programs of every kind."""
    made = program.run_decompositions(dict(table))
    signature, spec = made.graph_signature, made.call_spec
    return Decomposed(
        made.graph, signature.input_specs, signature.output_specs, made.constants, spec.in_spec, spec.out_spec
    )


_CONTEXTS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def _is_straight(module: fx.GraphModule) -> bool:
    """Whether the program has no control flow, so that it runs from top to bottom; `no_grad` and autocast may stand."""
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, HigherOrderOperator):
            if node.target.name() not in _CONTEXTS:
                return False
            inner = module.get_submodule(next(str(arg.target) for arg in node.args if _is_module(module, arg)))
            if not isinstance(inner, fx.GraphModule) or not _is_straight(inner):
                return False
    return True


def _is_module(module: fx.GraphModule, argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr" and hasattr(module, str(argument.target))


class _Program(fx.Interpreter):
    """Runs an exported program; what stood in `no_grad` or autocast blocks is run in its place.

    Operators outside the table are not computed again: the export knows their fake values; but under autocast it does
    not know the casts between them.
    """

    def __init__(self, module: fx.GraphModule, table: Table, is_cast: bool) -> None:
        super().__init__(module)
        self.table = table
        self.is_cast = is_cast
        self.node: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node."""
        self.node = n
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an operator."""
        if not isinstance(target, HigherOrderOperator):
            assert self.node is not None
            known = None if self.is_cast or target in self.table else known_value(self.node, self.env)
            made = None if known is None else record(target, args, kwargs, known)
            return super().call_function(target, args, kwargs) if made is None else made
        if target.name() == "wrap_with_set_grad_enabled":  # results of no_grad blocks are detached already
            _, inner, *rest = args
            return _Program(inner, self.table, self.is_cast).run(*rest)
        device, dtype, enabled, cache, inner, *rest = args
        with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache):
            return _Program(inner, self.table, True).run(*rest)


class _Decomposer:
    def __init__(self, program: torch.export.ExportedProgram, table: Table) -> None:
        self.program = program
        self.table = table
        self.specs = program.graph_signature.input_specs

    def run(self) -> Decomposed:
        module = self._trace()
        traced = module.graph
        placeholders = [node for node in traced.nodes if node.op == "placeholder"]
        specs = dict(zip(placeholders, self.specs, strict=True))
        rewritten = functional(traced)
        written = {node: rewritten[node] for node in placeholders if node in rewritten}
        for node in written:
            if specs[node].kind is InputKind.PARAMETER:
                raise NotFunctionalError(f"the forward writes into the parameter {specs[node].target}")
        for node, spec in specs.items():  # an input that is no tensor is a constant of the trace
            node.meta.setdefault("val", getattr(spec.arg, "value", None))
        names = {node: spec.arg.name for node, spec in specs.items()}
        graph, made = _copy(traced, names)
        constants = {str(n.target): getattr(module, str(n.target)) for n in traced.nodes if n.op == "get_attr"}
        _output(graph, [made[value] for value in written.values()], _returned(traced, made))
        call = self.program.call_spec
        return Decomposed(
            graph=graph,
            inputs=[*self.specs, *(_constant(name) for name in constants)],
            outputs=[*(_update(specs[n], made[value]) for n, value in written.items()), *self._returns(traced, made)],
            constants={**self.program.constants, **constants},
            in_spec=call.in_spec,
            out_spec=call.out_spec,
        )

    def _trace(self) -> fx.GraphModule:
        module = self.program.graph_module
        fakes: list[Any] = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
        mode = next(value.fake_mode for value in fakes if isinstance(value, FakeTensor))
        own, other = _kernels(tuple(self.table), self.table)
        with (
            torch.no_grad(),
            mode,
            enable_python_dispatcher(),
            override_composites(own),
            traceback.preserve_node_meta(),
            without_code(),
        ):
            run = _Program(module, self.table, is_cast=bool(casts())).run
            return trace(run, fakes, other)

    def _returns(self, traced: fx.Graph, made: Mapping[fx.Node, fx.Node]) -> list[OutputSpec]:
        """What the model returns, by the names that the values have now."""
        found = []
        for spec, node in zip(self.program.graph_signature.output_specs, _results(traced), strict=True):
            if spec.kind is not OutputKind.USER_OUTPUT:
                raise NotFunctionalError(f"it returns {spec.kind.name.lower()}")
            is_value = isinstance(node, fx.Node)
            found.append(dataclasses.replace(spec, arg=TensorArgument(made[node].name)) if is_value else spec)
        return found


def _results(graph: fx.Graph) -> Sequence[Any]:
    returned: Any = next(node for node in graph.nodes if node.op == "output").args[0]
    return returned if isinstance(returned, (tuple, list)) else (returned,)


def _returned(traced: fx.Graph, made: Mapping[fx.Node, fx.Node]) -> list[fx.Node]:
    return [made[node] for node in _results(traced) if isinstance(node, fx.Node)]


def _output(graph: fx.Graph, updates: list[fx.Node], returned: list[fx.Node]) -> None:
    graph.output((*updates, *returned))
    graph.eliminate_dead_code()


def _copy(traced: fx.Graph, names: Mapping[fx.Node, str]) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """Copies a traced graph without its output; values are numbered anew, and tensors of its own become inputs."""
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    inputs = [node for node in traced.nodes if node.op in ("placeholder", "get_attr")]
    for node in inputs:
        made[node] = graph.placeholder(str(node.target))
        made[node].name = made[node].target = names.get(node, made[node].name)
        made[node].meta = dict(node.meta)
    sizes = BatchSizes(graph, [made[node] for node in inputs])
    for node in traced.nodes:
        if node.op != "call_function":
            continue
        size = sizes.node(node.meta.get("val"))
        if size is None:
            args, kwargs = fx.map_arg((node.args, node.kwargs), made.__getitem__)
            size = graph.create_node("call_function", node.target, args, kwargs, short_name(node))
            size.meta = dict(node.meta)
        made[node] = size
    return graph, made


def _update(spec: InputSpec, value: fx.Node) -> OutputSpec:
    """A written input: a buffer's new value, or, which is refused later, the user's own tensor."""
    is_buffer = spec.kind is InputKind.BUFFER
    kind = OutputKind.BUFFER_MUTATION if is_buffer else OutputKind.USER_INPUT_MUTATION
    return OutputSpec(kind, TensorArgument(value.name), spec.target if is_buffer else spec.arg.name)


def _constant(name: str) -> InputSpec:
    return InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name), name)


def _kernels(operators: tuple[Any, ...], table: Table) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the tracer must be told: composite operators that stay whole or that we take apart, and all others."""
    composite, other = _split(_Hashed(operators, table))
    return composite, other


@dataclasses.dataclass(frozen=True)
class _Hashed:
    """A table that a cache can hold: two of the same operators are the same."""

    operators: tuple[Any, ...]
    table: Table = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=2)
def _split(hashed: _Hashed) -> tuple[dict[Any, Any], dict[Any, Any]]:
    composite, other = split_decompositions(dict(hashed.table))
    own = {op: f for op, f in composite.items() if op not in hashed.table or f.__module__.startswith("altprop")}
    return own, other
