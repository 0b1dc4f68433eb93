"""The laws of a flat program, as a table by level.

A program is *flat* when the derived graphs have been joined; of what it takes it then writes buffers alone. It is
*optimized* when the optimizer is in it and moves parameters, feedback and its own state in place. It is *tuned* when
what has no effect is gone and memory is used again.

The verifier collects all violations, then raises once, with the program behind them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.aliases import aliases, root_of
from altprop.ir.errors import ProgramError, VerifyError
from altprop.ir.fakes import Fakes, format_fake
from altprop.ir.operators import operator_text, writes, written
from altprop.ir.program import SLOT_KINDS, Program, Slot
from altprop.ir.program_text import format_program, parse_program
from altprop.ir.repeat_operator import body_of, is_repeat
from altprop.ir.schedule import is_gradient
from altprop.ir.sizes import size_at
from altprop.ir.torch_private import enable_python_dispatcher
from altprop.ir.walks import positions

LEVELS = ("flat", "optimized", "tuned")

Law = Callable[[Program], Iterator[str]]

_BATCHES = (2, 3, 5, 64)
_MODEL = ("parameter", "buffer", "constant", "input", "noise", "feedback")
_GRADIENTS = ("gradient", "feedback_gradient")

# program: the kinds of what it takes, and of what it gives; the programs of a schedule's tasks may hold any.
ROLES: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    "forward": (_MODEL, ("output", "residual")),
    # In a file, the update of one region takes and gives values of its neighbours.
    "update": ((*_MODEL, "residual", "cotangent", "scalar", "value"), (*_GRADIENTS, "error", "value", "lesson")),
    "backward": ((*_MODEL, "target"), ("loss", "error", "output", *_GRADIENTS, "lesson")),
    # A step that is a task of a schedule takes the gradients as values that other tasks made. In a file a step, and a
    # backward, give the prediction too.
    "step": ((*_MODEL, "target", "state", "scalar", "value"), ("loss", "error", "output", "lesson")),
    "observe": ((*_MODEL, "target"), ("loss", "observed", *_GRADIENTS, "lesson")),
    "probe": ((*_MODEL, "target"), ("loss", "observed")),
}

# level: the kinds of what a program may write, of all that it takes.
MOVED: Mapping[str, Collection[str]] = {
    "flat": ("buffer",),
    "optimized": ("buffer", "parameter", "feedback", "state"),
    "tuned": ("buffer", "parameter", "feedback", "state"),
}


def verify_program(program: Program, level: str, after: str = "", *, by_run: bool = False) -> None:
    """Checks all laws up to `level`.

    Args:
        program: the program.
        level: one of `LEVELS`, which the program has come to.
        after: name of what made it, for the message.
        by_run: whether the forms of its values are compared with those of a run on fake values, which takes time.

    Raises:
        VerifyError: lists every violation.
    """
    laws = [law for one in LEVELS[: LEVELS.index(level) + 1] for law in LAWS[one]]
    laws += [_writes_what_may_move(level), *([_forms_are_those_of_a_run] if by_run else [])]
    problems = list(_slots_fit(program)) or [problem for law in laws for problem in law(program)]
    if problems:
        marked = "\n".join(f"  ^ {problem}" for problem in problems)
        when = f"after {after}" if after else "as it stands"
        raise VerifyError(
            f"{when}, the program {program.name} breaks {len(problems)} law(s):\n{marked}\n\n{program.graph.graph}"
        )


def _slots_fit(program: Program) -> Iterator[str]:
    """Each placeholder has one slot, and each result."""
    nodes = list(program.graph.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    if nodes[: len(placeholders)] != placeholders:
        yield "a placeholder stands behind an operator"
    results = nodes[-1].args[0] if nodes and nodes[-1].op == "output" else ()
    for slots, found, what in ((program.inputs, placeholders, "input"), (program.outputs, results, "output")):
        if len(slots) != len(found):
            yield f"there are {len(slots)} {what} slots for {len(found)} {what}s"
        for slot in {slot for slot in slots if slots.count(slot) > 1}:
            yield f"the {what} slot {slot.kind} {slot.name} stands twice"


def _slots_have_roles(program: Program) -> Iterator[str]:
    taken, given = ROLES.get(program.name, (SLOT_KINDS, SLOT_KINDS))
    for slot in program.inputs:
        if slot.kind not in taken:
            yield f"it takes {slot.kind} {slot.name}, and a program {program.name} takes no {slot.kind}"
    for slot in program.outputs:
        if slot.kind not in given:
            yield f"it gives {slot.kind} {slot.name}, and a program {program.name} gives no {slot.kind}"


def _operators_are_known(program: Program) -> Iterator[str]:
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and operator_text(node.target) is None:
            yield f"{node.name}: {node.target} is no operator"
        elif node.op == "get_attr" and not hasattr(program.graph, str(node.target)):
            yield f"{node.name}: there is no tensor {node.target}"
        elif node.op not in ("call_function", "get_attr", "placeholder", "output"):
            yield f"{node.name}: a program has no {node.op}"


def _values_are_made_before_they_are_read(program: Program) -> Iterator[str]:
    order = positions(program.graph.graph.nodes)
    for node in order:
        for source in node.all_input_nodes:
            if order.get(source, len(order)) >= order[node]:
                yield f"{node.name}: reads {source.name} before it is made"


def _writes_come_last(program: Program) -> Iterator[str]:
    """What is written in place has no later reader: who wants the new value reads what the writer returns.

    A parameter may be written once more, by the same name: AdamW shrinks it before it moves it.
    """
    order = positions(program.graph.graph.nodes)
    for node in order:
        for target in written(node):
            old = [one for one in aliases(root_of(target)) if order[one] < order[node]]
            for member in old:
                for user in member.users:
                    if order[user] > order[node] and member not in written(user):
                        yield f"{user.name}: reads {member.name}, which {node.name} has written before"


def _writes_what_may_move(level: str) -> Law:
    """Of what it takes, a program writes what it moves; what a caller gives stays as it is."""

    def law(program: Program) -> Iterator[str]:
        kept = {node: slot for slot, node in program.placeholders.items() if not _may_move(slot, level)}
        for node in program.graph.graph.nodes:
            for target in written(node):
                root = root_of(target)
                slot = kept.get(root)
                if root.op == "get_attr":
                    yield f"{node.name}: writes {root.target}, a constant, which may be a tensor of the loss's"
                elif slot is not None:
                    yield f"{node.name}: writes {slot.kind} {slot.name}, which a program that is {level} leaves alone"

    return law


def _may_move(slot: Slot, level: str) -> bool:
    """Whether a program may write what it takes; a task of a schedule adds to the gradients of earlier tasks."""
    return slot.kind in MOVED[level] or (slot.kind == "value" and level != "flat" and is_gradient(slot.name))


def _bodies_fit(program: Program) -> Iterator[str]:
    """The body of a loop takes what the loop is given, gives what it carries in the same form, and writes nothing."""
    for node in program.graph.graph.nodes:
        if not is_repeat(node):
            continue
        carried, read, times, _ = node.args
        body = body_of(node)
        if times < 0 or len(body.inputs) != len(carried) + len(read) or len(body.outputs) != len(carried):
            yield f"{node.name}: {times} rounds of {len(carried)} and {len(read)} values do not fit its body"
            continue
        fakes = [one.meta.get("val") for one in (*carried, *read, *carried)]
        taken = [one.meta.get("val") for one in (*body.placeholders.values(), *body.results.values())]
        for place, (given, wanted) in enumerate(zip(fakes, taken, strict=True)):
            if given is not None and wanted is not None and (given.dtype, given.dim()) != (wanted.dtype, wanted.dim()):
                yield f"{node.name}: value {place} of its body is {format_fake(wanted)}, not {format_fake(given)}"
        for one in body.graph.graph.nodes:
            if any(root_of(target).op == "placeholder" for target in written(one)):
                yield f"{node.name}: {one.name} writes what its body was given"


def _operators_have_an_effect(program: Program) -> Iterator[str]:
    for node in program.graph.graph.nodes:
        if node.op == "call_function" and not node.users and not writes(node):
            yield f"{node.name}: nothing reads it, and it writes nothing"


def _forms_are_those_of_a_run(program: Program) -> Iterator[str]:
    """Sizes, strides, type and device of each fake value are those that a run on fakes gives.

    The run is one of a copy with fakes of its own, since to run an operator may fix the batch of a captured graph. A
    program without a text has no such copy: its sizes depend on numbers in tensors, which fakes do not have.
    """
    constants = {str(n.target): n for n in program.graph.graph.nodes if n.op == "get_attr"}
    held = {name: getattr(program.graph, name) for name in constants}
    try:
        text = format_program(program)
    except ProgramError:
        return
    copy = parse_program(text, held, fakes := Fakes.fresh(_example(text)))
    values: dict[fx.Node, Any] = {}
    with torch.no_grad(), enable_python_dispatcher(), fakes.mode:
        for node in copy.graph.graph.nodes:
            known = node.meta.get("val")
            try:
                values[node] = made = _run(node, known, values, held, fakes)
            except (
                RuntimeError,
                TypeError,
                ValueError,
                IndexError,
            ) as error:  # as operators refuse what they are given
                yield f"{node.name}: cannot run: {(str(error).splitlines() or [''])[0]}"
                values[node] = known
                continue
            if known is not None and not _alike(made, known):
                yield f"{node.name}: is {format_fake(made)} in a run, and is taken for {format_fake(known)}"
                values[node] = known


def _alike(one: Any, other: Any) -> bool:
    """Whether two values have one form in batches of any size; expressions of the batch may be written differently."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        plain = all(getattr(one, what) == getattr(other, what) for what in ("dtype", "device", "layout"))
        return plain and one.dim() == other.dim() and all(map(_equal, _numbers(one), _numbers(other)))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor) or one is None or other is None:
        return one is None and other is None
    return _equal(one, other)


def _numbers(value: torch.Tensor) -> tuple[Any, ...]:
    return (*value.shape, *value.stride())


def _equal(one: Any, other: Any) -> bool:
    numbers = (int, torch.SymInt)
    if not isinstance(one, numbers) or not isinstance(other, numbers):
        return type(one) is type(other)
    return all(size_at(one, batch) == size_at(other, batch) for batch in _BATCHES)


def _run(node: fx.Node, known: Any, values: Mapping[fx.Node, Any], held: Mapping[str, Any], fakes: Fakes) -> Any:
    if node.op == "placeholder":
        return 1.0 if known is None else known  # one without a value is a number that changes from step to step
    if node.op == "get_attr":
        return fakes.mode.from_tensor(held[str(node.target)])
    if node.op != "call_function":
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _example(text: str) -> int | None:
    """The example's batch, as the text of a program has it."""
    line = text.split("\n")[2]
    return int(line.removeprefix("batch ")) if line.startswith("batch ") else None


LAWS: Mapping[str, tuple[Law, ...]] = {
    "flat": (
        _slots_have_roles,
        _operators_are_known,
        _values_are_made_before_they_are_read,
        _writes_come_last,
        _bodies_fit,
    ),
    "optimized": (),
    "tuned": (_operators_have_an_effect,),
}
