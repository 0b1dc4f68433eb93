"""Writes ONNX operators: names, constants, types, sizes.

Every value of a pure program has one ONNX name. A size of the batch is an integer without dimensions there, so that
it can be computed with and be one number of a shape. What a translator gets are the arguments of an fx node as they
stand: nodes, numbers, lists of both.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from altprop.compiler.export.numbers import is_symbolic, numpy_type

OPSET = 20
IR_VERSION = 10


def onnx_type(dtype: torch.dtype) -> int:
    """Returns the number that ONNX gives a type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_type(dtype))))


def type_of(value: Any) -> torch.dtype:
    """Returns the type of what an fx node holds, or of a number."""
    if isinstance(value, fx.Node):
        value = value.meta["val"]
    if isinstance(value, torch.Tensor):
        return value.dtype
    if isinstance(value, (bool, torch.SymBool)):
        return torch.bool
    return torch.int64 if isinstance(value, (int, torch.SymInt)) else torch.float64


@dataclasses.dataclass
class Emitter:
    """ONNX operators in the making.

    Attributes:
        nodes: the operators, in order.
        site: where what is written belongs: "region/part".
        note: what each operator says of itself in the file.
        constants: initializers by name.
        apart: the tensors of those initializers that say what they are and hold no data.
        names: the ONNX name of each fx node that has one value.
        rows: values of one row of ones.
        block: channels in a block of a convolution's layout; 0 for plain convolutions.
        write: what writes one operator, of (emitter, node), for operators that hold others.
    """

    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = dataclasses.field(default_factory=dict)
    apart: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    names: dict[fx.Node, Any] = dataclasses.field(default_factory=dict)
    site: str = ""
    note: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: set[str] = dataclasses.field(default_factory=set)
    block: int = 0
    write: Callable[["Emitter", fx.Node], Any] = dataclasses.field(default=lambda emitter, node: None, repr=False)
    _known: dict[Any, str] = dataclasses.field(default_factory=dict)
    _made: dict[Any, list[str]] = dataclasses.field(default_factory=dict)
    _counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def inside(self) -> "Emitter":
        """Returns an emitter for a graph in an operator: it may read what is here, and nothing of it is read here."""
        inner = dataclasses.replace(self, nodes=[], names={}, block=0)
        inner._known, inner._made = dict(self._known), dict(self._made)
        inner._counts = self._counts
        return inner

    def fresh(self, hint: str) -> str:
        """Returns a name that no value has: the place, and what it is. No key of a model looks like it."""
        name = f"{self.site or 'program'}/{hint}"
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}.{self._counts[name]}"

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds an operator, unless one does the same; returns the name of its result, or the names of its results."""
        key = (kind, inputs, outputs, repr(sorted(attributes.items())))
        if key not in self._made:
            made = [self.fresh(kind) for _ in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), made, name=made[0], **attributes))
            for said, text in self.note.items():
                self.nodes[-1].metadata_props.add(key=f"altprop.{said}", value=text)
            self._made[key] = made
        found = self._made[key]
        return found[0] if outputs == 1 else list(found)

    def shared(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        """Returns a value that several operators want, made for the first."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> str:
        """Adds a constant, once; returns its name."""
        array = np.asarray(value, dtype=None if dtype is None else numpy_type(dtype))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._constant_name(array)
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            self._known[key] = name
        return self._known[key]

    def _constant_name(self, array: np.ndarray) -> str:
        """A name that says its numbers, if they are few."""
        name = "constant/" + (",".join(map(str, array.reshape(-1).tolist())) if 0 < array.size < 5 else "table")
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}/{self._counts[name]}"

    def integers(self, values: Sequence[int]) -> str:
        """Adds a vector of integers."""
        return self.constant(np.asarray(list(values), dtype=np.int64))

    def cast(self, name: str, source: torch.dtype, target: torch.dtype) -> str:
        """Converts a value; the operator belongs where the value is made, since others may want it so too."""
        if source is target:
            return name
        here, self.site = self.site, name.rpartition("/")[0] or self.site
        made: str = self.op("Cast", name, to=onnx_type(target))
        self.site = here
        return made

    def value(self, arg: Any, dtype: torch.dtype | None = None) -> str:
        """Returns the name of an argument, a node or a number, converted to a type."""
        if isinstance(arg, fx.Node):
            name: str = self.names[arg]
            return name if dtype is None else self.cast(name, type_of(arg), dtype)
        return self.constant(arg, dtype or type_of(arg))

    def size(self, arg: Any) -> str:
        """Returns a size as a vector of one integer."""
        if isinstance(arg, fx.Node):
            return self.op("Unsqueeze", self.value(arg, torch.int64), self.integers([0]))
        return self.integers([int(arg)])

    def shape(self, sizes: Sequence[Any]) -> str:
        """Returns a shape as a vector; its sizes are numbers or nodes."""
        if not any(isinstance(size, fx.Node) and is_symbolic(size.meta["val"]) for size in sizes):
            return self.integers([_number(size) for size in sizes])
        return self.op("Concat", *(self.size(_fixed(size)) for size in sizes), axis=0)

    def reshape(self, name: str, shape: Sequence[Any], sizes: Sequence[Any] | None = None) -> str:
        """Reshapes a value to a fake tensor's shape; `sizes` are where to read its sizes from."""
        symbolic = [index for index, size in enumerate(shape) if is_symbolic(size)]
        if len(symbolic) > 1 and sizes is not None:
            return self.op("Reshape", name, self.shape(sizes))
        wanted = [-1 if index in symbolic else int(size) for index, size in enumerate(shape)]
        zero = 0 in wanted
        return self.op("Reshape", name, self.integers(wanted), **({"allowzero": 1} if zero else {}))


def _number(size: Any) -> int:
    return int(size.meta["val"]) if isinstance(size, fx.Node) else int(size)


def _fixed(size: Any) -> Any:
    return size if not isinstance(size, fx.Node) or is_symbolic(size.meta["val"]) else _number(size)


def value_info(name: str, value: Any, batch: str = "batch") -> onnx.ValueInfoProto:
    """Describes an input or output by a fake tensor; a symbolic size becomes a name."""
    shape = [_dimension(size, batch) for size in value.shape]
    return helper.make_tensor_value_info(name, onnx_type(value.dtype), shape)


def _dimension(size: Any, batch: str) -> int | str:
    if not is_symbolic(size):
        return int(size)
    symbols = sorted(str(symbol) for symbol in size.node.expr.free_symbols)
    text = str(size.node.expr)
    return text.replace(symbols[0], batch) if len(symbols) == 1 else text


FLOAT = TensorProto.FLOAT
