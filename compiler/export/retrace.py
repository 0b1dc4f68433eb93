"""Makes a flat program pure: no writes, no random state, and no operator that ONNX could not express.

A *pure* program returns what a flat program writes: the new value of a parameter, buffer, feedback matrix or state is
a result in a slot of that kind and name. Random operators draw from a seed that comes in as an input.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx import traceback

from altprop.compiler.capture.functional import without_write
from altprop.compiler.export.decompose import Table, table
from altprop.compiler.export.threefry import Random
from altprop.ir.errors import ExportError
from altprop.ir.operators import is_random, is_view, writes, written
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Program, Slot
from altprop.ir.program_text import format_program
from altprop.ir.repeat_operator import SHORT, body_of, is_repeat, repeat, times_of
from altprop.ir.torch_private import note_on_nodes, schema_of
from altprop.ir.tracing import trace
from altprop.passes.tune.merge import Place, everywhere, merge_twins
from altprop.passes.tune.simplify import simplify

aten = torch.ops.aten

SEED = Slot("scalar", "seed")
STEP = Slot("state", "step")
RATE = 0.01  # of a step that is compared with torch
RATES = (Slot("scalar", "lr"), Slot("scalar", "feedback_lr"))

_PLAIN = {
    aten.uniform_.default: aten.uniform.default,
}


class PureRunner(fx.Interpreter):
    """Runs a flat program without writing: an operator that writes becomes its plain form.

    Later readers of what it wrote see the new value, and so do views that are taken later.
    """

    def __init__(
        self,
        program: Program,
        random: Random,
        around: Mapping[str, str] | None = None,
        bodies: Mapping[str, str] | None = None,
    ) -> None:
        """Takes a program and what draws.

        Args:
            program: a flat program.
            random: what draws.
            around: the note of the operator that a loop's body stands in.
            bodies: of loops that stay loops, the text of the pure body by that of the body.
        """
        super().__init__(program.graph, garbage_collect_values=False)
        self.bodies = bodies or {}
        self.random = random
        self.around = around or {"region": ""}
        self.note: dict[str, str] = {}
        check_views(program)

    def run_node(self, node: fx.Node) -> Any:
        """Runs one operator."""
        self.note = {**self.around, **node.meta.get("custom", {})}
        if node.op != "call_function":
            return super().run_node(node)
        if is_repeat(node):
            return self._loop(node) if node.args[3] in self.bodies else self._unroll(node)
        if node.target in (aten.view.default, aten._unsafe_view.default):
            return self._reshape(node)
        draw = draws(self.random).get(node.target)
        if not writes(node) and draw is None:
            return super().run_node(node)
        with note_on_nodes(self.note):
            result = self._pure(node, draw)
        for target in roots(node) if writes(node) else []:
            self.env[target] = result
        return result

    def _unroll(self, node: fx.Node) -> list[Any]:
        """A loop is written out, round after round."""
        (carried, read, times, _), _ = self.fetch_args_kwargs_from_env(node)
        for _ in range(times):
            around = PureRunner(body_of(node), self.random, self.note)
            with note_on_nodes(self.note):
                carried = around.run(*carried, *read, enable_io_processing=False)
        return list(carried)

    def _loop(self, node: fx.Node) -> list[Any]:
        """A loop stays one, of a pure body."""
        (carried, read, times, body), _ = self.fetch_args_kwargs_from_env(node)
        with note_on_nodes(self.note):
            return list(repeat(carried, read, times, self.bodies[body]))

    def _reshape(self, node: fx.Node) -> Any:
        """What is decomposed may lie in memory in another order, which a view would refuse."""
        args, _ = self.fetch_args_kwargs_from_env(node)
        with note_on_nodes(self.note):
            return args[0].reshape(args[1])

    def _pure(self, node: fx.Node, draw: Callable[..., Any] | None) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if draw is not None:
            return draw(*args, **kwargs)
        if node.target is aten.copy_.default:
            return args[1].expand(args[0].shape).to(args[0].dtype)
        return plain(node)(*args, **kwargs)


def draws(random: Random) -> Mapping[Any, Callable[..., Any]]:
    """What draws the random numbers of each operator that has some."""
    return {
        aten.native_dropout.default: random.native_dropout,
        aten.bernoulli_.float: random.bernoulli,
        aten.bernoulli.p: random.bernoulli,
        aten.rand_like.default: random.rand_like,
        aten.randn_like.default: random.randn_like,
    }


def plain(node: fx.Node) -> Any:
    """Returns the form of an operator that does not write.

    Raises:
        ExportError: there is none.
    """
    target: Any = node.target
    if target in _PLAIN:
        return _PLAIN[target]
    found = without_write(target) if schema_of(target).name.endswith("_") else target
    if found is None:
        raise ExportError(
            f"{region_of(node)}: the operator {target} writes and has no form that does not: "
            "write it in other operators."
        )
    return found


def region_of(node: fx.Node) -> str:
    """Says which region an operator belongs to."""
    name = node.meta.get("custom", {}).get("region")
    outside = "what stands outside of all regions, before the first layer, in the loss or in the optimizer"
    return f'region "{name}"' if name else outside


def roots(node: fx.Node) -> Iterator[fx.Node]:
    """What an operator writes: its argument, and if that is the result of a write, the argument of that one."""
    for target in written(node):
        yield target
        if target.op == "call_function" and writes(target):
            yield from roots(target)


def check_views(program: Program) -> None:
    """A view that was taken before a write and is read behind it would show the old value.

    Raises:
        ExportError: there is one.
    """
    order = {node: index for index, node in enumerate(program.graph.graph.nodes)}
    for node in order:
        if node.op != "call_function" or not writes(node):
            continue
        for root in roots(node):
            if is_view(root) and not writes(root):
                raise ExportError(f"{region_of(node)}: {node} writes through the view {root}.")
            for view in _views(root):
                late = [user for user in view.users if order[user] > order[node] and user.op != "output"]
                if late and order[view] < order[node]:
                    raise ExportError(f"{region_of(node)}: {node} writes what {late[0]} reads through a view.")


def _views(node: fx.Node) -> Iterator[fx.Node]:
    for user in node.users:
        if is_view(user) and not writes(user) and user.args and user.args[0] is node:
            yield user
            yield from _views(user)


def purify(
    program: Program,
    fake_mode: Any,
    optimizer: Optimizer | None,
    decompositions: Table | None = None,
    *,
    loops: bool = False,
    place: Place = everywhere,
) -> Program:
    """Retraces a program: pure, decomposed, simplified.

    Args:
        program: a flat program whose nodes carry fake values.
        fake_mode: the mode of these values.
        optimizer: whose scalars the program takes; they are computed from rates and the step inside.
        decompositions: what stands in the place of operators that an engine lacks; None: those for ONNX.
        loops: whether loops of more than `SHORT` rounds stay loops; all others are written out.
        place: of an operator; those that do the same work are joined where they are in one place.

    Raises:
        ExportError: an operator has no pure form.
    """
    chosen = table() if decompositions is None else decompositions
    bodies = _pure_bodies(program, chosen) if loops else {}
    return _drop_unread(_retraced(program, fake_mode, optimizer, chosen, bodies, place))


def _pure_bodies(program: Program, decompositions: Table) -> dict[str, str]:
    """The text of the pure body of each long loop, by that of its body."""
    found: dict[str, str] = {}
    for node in program.graph.graph.nodes:
        if is_repeat(node) and times_of(node) > SHORT:
            body = body_of(node)
            mode = next(iter(body.placeholders.values())).meta["val"].fake_mode
            pure = _retraced(body, mode, None, decompositions, {})
            if all(one.op != "get_attr" for one in pure.graph.graph.nodes):
                found[str(node.args[3])] = format_program(pure)
    return found


def _retraced(
    program: Program,
    fake_mode: Any,
    optimizer: Optimizer | None,
    decompositions: Table,
    bodies: Mapping[str, str],
    place: Place = everywhere,
) -> Program:
    slots, fakes = _inputs(program, fake_mode, optimizer)
    results: list[Slot] = []

    def run(*args: Any) -> list[Any]:
        results.clear()
        given = dict(zip(slots, args, strict=True))
        made = run_pure(program, given, optimizer, bodies)
        results.extend(made)
        return list(made.values())

    with fake_mode, torch.no_grad(), traceback.preserve_node_meta():
        module = trace(run, fakes, decompositions)
    graph = module.graph
    graph.eliminate_dead_code()
    simplify(graph)
    merge_twins(graph, place)
    module.recompile()
    return Program(program.name, module, tuple(slots), tuple(results))


def run_pure(
    program: Program,
    given: Mapping[Slot, Any],
    optimizer: Optimizer | None,
    bodies: Mapping[str, str] | None = None,
) -> dict[Slot, Any]:
    """Runs a flat program without writing. Returns its results, and the new value of what it would have written.

    Args:
        program: a flat program.
        given: a value for each slot, for the rates, the step and the seed.
        optimizer: whose scalars the program takes.
        bodies: of loops that stay loops, the text of the pure body by that of the body.
    """
    zero = next(v for v in given.values() if isinstance(v, torch.Tensor)).new_zeros((), dtype=torch.int64)
    step = given.get(STEP, zero)
    values = dict(given)
    if optimizer is not None:
        values |= scalars(optimizer, given, step + 1)
    random = Random(given.get(SEED, zero), step)
    for slot, node in program.placeholders.items():
        if slot.kind == "noise":
            values[slot] = random.noise(node.meta["val"].shape, node.meta["val"].dtype)
    runner = PureRunner(program, random, bodies=bodies)
    returned = runner.run(*(values[slot] for slot in program.inputs), enable_io_processing=False)
    made = dict(zip(program.outputs, returned, strict=True))
    for slot, node in program.placeholders.items():
        if runner.env[node] is not values[slot]:
            made[slot] = runner.env[node]
    if STEP in given and program.is_step:
        made[STEP] = step + 1
    return made


def scalars(optimizer: Optimizer, given: Mapping[Slot, Any], step: Any) -> dict[Slot, Any]:
    """The optimizer's own arithmetic, on tensors: its numbers of one step, in float64."""
    moving = copy.copy(optimizer)
    moving.lr = given.get(RATES[0], given.get(RATES[1])).to(torch.float64)
    moving.feedback_lr = given.get(RATES[1], given.get(RATES[0])).to(torch.float64)
    numbers = moving.scalars(step.to(torch.float64))
    return {Slot("scalar", name): number for name, number in numbers.items()}


def _inputs(program: Program, fake_mode: Any, optimizer: Optimizer | None) -> tuple[list[Slot], list[Any]]:
    fakes = {
        slot: node.meta["val"].detach()
        for slot, node in program.placeholders.items()
        if slot.kind not in ("scalar", "noise")
    }
    with fake_mode:
        if optimizer is not None:
            fakes |= {rate: torch.empty((), dtype=torch.float32) for rate in RATES}
            fakes[STEP] = torch.empty((), dtype=torch.int64)
        if _is_random(program):
            fakes[SEED] = torch.empty((), dtype=torch.int64)
    return list(fakes), list(fakes.values())


def _is_random(program: Program) -> bool:
    noise = any(slot.kind == "noise" for slot in program.inputs)
    return noise or any(is_random(node) for node in program.graph.graph.nodes)


def _drop_unread(program: Program) -> Program:
    """Inputs that nothing reads go, but for those whose new value is a result."""
    graph = program.graph.graph
    kept = []
    for slot, node in program.placeholders.items():
        if node.users or slot in program.outputs:
            kept.append(slot)
        else:
            graph.erase_node(node)
    program.graph.recompile()
    return program.replace(inputs=tuple(kept))


def placeholders(program: Program) -> Sequence[fx.Node]:
    """Returns the input nodes, in the order of the slots."""
    return [node for node in program.graph.graph.nodes if node.op == "placeholder"]
