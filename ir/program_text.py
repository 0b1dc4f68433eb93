"""Text of a program.

The first line names the version. Then come the program's name, the example's batch, the inputs with their slots, the
tensors that the program holds, the operators, one a line, and the outputs:

    altprop program 1
    program step
    batch 4
    take p_fc1_weight = parameter fc1.weight: float32 (9, 7)
    take x = input x: float32 (N, 7)
    take minus_lr = scalar minus_lr
    hold weights = update_constant_0: float32 (3)
    t = aten.t(p_fc1_weight): float32 (7, 9) strides (1, 7) in fc1
    mm = aten.mm(x, t): float32 (N, 9) in fc1
    add = aten.add.Tensor(mm, 1.0, alpha=2): float32 (N, 9)
    give loss loss = add

Behind a colon stands the form of the value, as `altprop.ir.fakes` writes it, where it has one: numbers that are not
whole have none. Behind "in" stands the region that the operator belongs to. An operator without an overload is the
default one. Names of slots, regions and tensors stand in double quotes, as a JSON text, where they would be read
otherwise. The tensors that a program holds are named, not written. Blank lines and lines that start with `#` do not
count.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from altprop.ir.argument_text import format_arguments, read_arguments
from altprop.ir.errors import ProgramError
from altprop.ir.fakes import Fakes, format_fake
from altprop.ir.json_document import shown
from altprop.ir.line_reader import LineReader
from altprop.ir.operators import operator_called, operator_text
from altprop.ir.program import SLOT_KINDS, Program, Slot
from altprop.ir.size_text import BATCH, TextError

VERSION = 1
LONGEST = 300  # characters of a name

# What follows from the arguments, and what nothing asks of a value.
_FOLLOWS = (torch.SymFloat, torch.SymBool)

_BARE = r'[^\s"]*[^\s":]'
_NAME = rf'"(?:[^"\\]|\\.)*"|{_BARE}'
_NODE = r"[A-Za-z_][A-Za-z_0-9]*"
_KIND = "|".join(SLOT_KINDS)

# line: its pattern; the groups are what `_Parser` has a method for.
_LINES: Mapping[str, re.Pattern[str]] = {
    "program": re.compile(rf"program ({_NAME})"),
    "batch": re.compile(r"batch ([1-9]\d*)"),
    "take": re.compile(rf"take ({_NODE}) = ({_KIND}) ({_NAME})(?:: (.+))?"),
    "hold": re.compile(rf"hold ({_NODE}) = ({_NAME})(?:: (.+))?"),
    "give": re.compile(rf"give ({_KIND}) ({_NAME}) = ({_NODE})"),
}
_CALL = re.compile(rf"({_NODE}) = ([A-Za-z_][\w.]*)\((.*)")
_REST = re.compile(rf"(?:: (.+?))?(?: in ({_NAME}))?")


def format_program(program: Program) -> str:
    """Returns the text of a program; `parse_program` gives the program back.

    Raises:
        ProgramError: an operator, an argument or a value has no text.
    """
    lines = [f"altprop program {VERSION}", f"program {_write_name(program.name)}"]
    try:
        batch = _batch(program.graph.graph)
    except TextError as error:
        raise ProgramError(f"program {program.name}: {error}.") from error
    if batch is not None:
        lines.append(f"batch {batch}")
    slots = {node: slot for slot, node in program.placeholders.items()}
    for node in program.graph.graph.nodes:
        try:
            lines += _node_lines(node, slots)
        except TextError as error:
            raise ProgramError(f"program {program.name}, {node.name}: {error}.") from error
    for slot, result in program.results.items():
        lines.append(f"give {slot.kind} {_write_name(slot.name)} = {result.name}")
    return "\n".join(lines)


def _node_lines(node: fx.Node, slots: Mapping[fx.Node, Slot]) -> list[str]:
    if node.op == "output":
        return []
    value = node.meta.get("val")
    form = "" if value is None or isinstance(value, _FOLLOWS) else f": {format_fake(value)}"
    if node.op == "placeholder":
        return [f"take {node.name} = {slots[node].kind} {_write_name(slots[node].name)}{form}"]
    if node.op == "get_attr":
        return [f"hold {node.name} = {_write_name(str(node.target))}{form}"]
    operator = operator_text(node.target) if node.op == "call_function" else None
    if operator is None:
        raise TextError(f"{node.target} has no text")
    region = node.meta.get("custom", {}).get("region")
    where = "" if region is None else f" in {_write_name(region)}"
    return [f"{node.name} = {operator}({format_arguments(node.args, node.kwargs)}){form}{where}"]


def _batch(graph: fx.Graph) -> int | None:
    """The example's batch, or None where no size depends on it."""
    for node in graph.nodes:
        for value in _leaves(node.meta.get("val")):
            for size in (*value.shape, *value.stride()) if isinstance(value, torch.Tensor) else (value,):
                if isinstance(size, torch.SymInt) and (symbols := size.node.expr.free_symbols):
                    return _hint(size, symbols)
    return None


def _hint(size: torch.SymInt, symbols: Any) -> int:
    assert size.node.shape_env is not None
    hint = size.node.shape_env.create_symintnode(next(iter(symbols)), hint=None).node.hint
    if hint is None:
        raise TextError(f"{size} depends on the numbers in a tensor, not on the batch")
    return int(hint)


def _leaves(value: Any) -> list[Any]:
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, tuple | list) else [value]


def _write_name(name: str) -> str:
    return name if re.fullmatch(_BARE, name) else json.dumps(name)


def parse_program(
    text: str,
    constants: Mapping[str, torch.Tensor] | None = None,
    fakes: Fakes | None = None,
    where: str = "program text",
) -> Program:
    """Builds the program that a text describes.

    Args:
        text: as `format_program` writes it.
        constants: the tensors that the program holds, by name.
        fakes: makes the program's fake values; None makes new ones, with a batch of their own.
        where: name of the file, for messages.

    Raises:
        ProgramError: names the line that cannot be read.
    """
    return _Parser(constants or {}, fakes, where).parse(text)


class _Parser(LineReader):
    """Reads one text."""

    kind, many, version, failure = "program", "programs", VERSION, ProgramError

    def __init__(self, constants: Mapping[str, torch.Tensor], fakes: Fakes | None, where: str) -> None:
        super().__init__(where)
        self.constants = constants
        self.fakes = fakes
        self.read: list[tuple[int, str]] = []
        self.header: dict[str, str] = {}
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.inputs: list[Slot] = []
        self.outputs: dict[Slot, fx.Node] = {}

    def parse(self, text: str) -> Program:
        for line in self.lines(text):
            self._line(line)
            self.read.append((self.number, line))
        if "program" not in self.header:
            raise self.error('the program has no name: a line "program NAME"')
        self.graph.output(tuple(self.outputs.values()))
        module = fx.GraphModule(self.root, self.graph)
        program = Program(self.header["program"], module, tuple(self.inputs), tuple(self.outputs))
        self._one_form(program)
        return program

    def _one_form(self, program: Program) -> None:
        """Refuses a text that is not the one that its program has."""
        for (number, line), written in zip(self.read, format_program(program).split("\n")[1:], strict=False):
            self.number = number
            if line != written:
                raise self.error(f"{shown(line, 120)} has another form: it is written {shown(written, 120)}")

    def _line(self, line: str) -> None:
        call = _CALL.fullmatch(line)
        if call is not None:
            self._call(*call.groups())
            return
        word = line.split(" ", 1)[0]
        match = _LINES[word].fullmatch(line) if word in _LINES else None
        if match is None:
            raise self.error(f"{json.dumps(line)} does not read as a line of a program")
        getattr(self, f"_{word}")(*match.groups())

    def _program(self, name: str) -> None:
        self._head("program", self._name(name))

    def _batch(self, example: str) -> None:
        self._head("batch", example)
        if self.nodes:
            raise self.error("the batch stands behind values that may depend on it: put it before them")
        if self.fakes is None:
            if int(example) < 2:
                raise self.error("a batch of 1 stands for itself alone: give one of 2 or more")
            self.fakes = Fakes.fresh(int(example))

    def _head(self, key: str, value: str) -> None:
        if key in self.header:
            raise self.error(f'"{key}" stands twice')
        self.header[key] = value

    def _take(self, node: str, kind: str, name: str, form: str | None) -> None:
        if any(one.op != "placeholder" for one in self.nodes.values()):
            raise self.error(f"{node} is taken behind the first operator: inputs stand before all operators")
        slot = Slot(kind, self._name(name))
        if slot in self.inputs:
            raise self.error(f"the slot {kind} {slot.name} is taken twice")
        self.inputs.append(slot)
        self._add(node, form, lambda: self.graph.create_node("placeholder", node, (), {}, node))

    def _hold(self, node: str, name: str, form: str | None) -> None:
        target = self._name(name)
        if target not in self.constants:
            raise self.error(f"the program holds a tensor {json.dumps(target)}, and none of that name was given")
        if not re.fullmatch(_NODE, target):
            raise self.error(f"{json.dumps(target)} is no name of a tensor that a program holds")
        self.root.register_buffer(target, self.constants[target], persistent=False)
        self._add(node, form, lambda: self.graph.create_node("get_attr", target, (), {}, node))

    def _call(self, node: str, operator: str, rest: str) -> None:
        target = operator_called(operator)
        if target is None:
            raise self.error(f"there is no operator {operator}")
        read = self._try(lambda: read_arguments(rest, self._node))
        end = _REST.fullmatch(rest[read.end :])
        if end is None:
            raise self.error(f"{json.dumps(rest[read.end :])} behind {operator}(...) is neither a form nor a region")
        self._add(node, end[1], lambda: self.graph.create_node("call_function", target, read.args, read.kwargs, node))
        if end[2] is not None:
            self.nodes[node].meta["custom"] = {"region": self._name(end[2])}

    def _give(self, kind: str, name: str, node: str) -> None:
        slot = Slot(kind, self._name(name))
        if slot in self.outputs:
            raise self.error(f"the slot {kind} {slot.name} is given twice")
        self.outputs[slot] = self._try(lambda: self._node(node))

    def _node(self, name: str) -> fx.Node:
        if name not in self.nodes:
            raise TextError(f"{name} is read before it is made")
        return self.nodes[name]

    def _add(self, name: str, form: str | None, make: Callable[[], fx.Node]) -> None:
        if self.outputs:
            raise self.error(f"{name} is made behind an output: outputs stand at the end")
        if name in self.nodes:
            raise self.error(f'"{name}" stands twice')
        if len(name) > LONGEST:
            raise self.error(f"a name of {len(name)} characters; {LONGEST} are enough")
        node = self.nodes[name] = make()
        if node.name != name:
            raise self.error(f"{name} has a meaning in Python: give the value another name, such as {node.name}")
        if form is not None:
            node.meta["val"] = self._form(form)

    def _form(self, text: str) -> Any:
        if self.fakes is None:
            self.fakes = Fakes.fresh()
        fakes = self.fakes
        if "batch" not in self.header and re.search(rf"\b{BATCH}\b", text):
            raise self.error(f'{text} depends on the batch {BATCH}: give an example of it, in a line "batch 4"')
        return self._try(lambda: fakes.read(text))

    def _name(self, token: str) -> str:
        name = self._try(lambda: json.loads(token) if token.startswith('"') else token)
        assert isinstance(name, str)
        return name

    def _try(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except ValueError as error:  # of JSON, too
            raise self.error(str(error)) from error
