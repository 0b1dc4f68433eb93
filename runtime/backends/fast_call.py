"""A program as one Python function whose operators are looked up beforehand.

Generated code names an operator by its path, `torch.ops.aten.add.Tensor`, and calls it through a Python method. That
takes longer than a short operator runs. Here every operator is a name of the function's own, bound to what torch calls
in the end: its own function where there is one for these very arguments, which reads them fastest, else the operator's.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir.torch_private import OpOverload, TensorBase, kernel_of

Function = Callable[..., Sequence[Any]]

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)(?=\()")

aten = torch.ops.aten
_Tensor = TensorBase

# Functions of torch that take an operator's arguments as they are and call it, and no other; only short operators,
# beside which reading the arguments takes time.
NATIVE: dict[OpOverload, Callable[..., Any]] = {
    aten.add.Tensor: torch.add,
    aten.add_.Tensor: _Tensor.add_,
    aten.addmm.default: torch.addmm,
    aten.addmm_.default: _Tensor.addmm_,
    aten.addmv_.default: _Tensor.addmv_,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.mul_.Tensor: _Tensor.mul_,
    aten.new_ones.default: _Tensor.new_ones,
    aten.relu.default: torch.relu,
    aten.relu_.default: torch.relu_,
    aten.sub.Tensor: torch.sub,
    aten.sub_.Tensor: _Tensor.sub_,
    aten.sym_size.int: _Tensor.size,
    aten.t.default: torch.t,
    aten.tanh.default: torch.tanh,
    aten.tanh_.default: torch.tanh_,
    aten.view.default: _Tensor.view,
}


def straight(module: fx.GraphModule) -> Function:
    """Returns a program's forward, with the same operators on the same values."""
    code = module.graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)

    def bind(found: re.Match[str]) -> str:
        space, name, overload = found.groups()
        operator = getattr(getattr(getattr(torch.ops, space), name), overload)
        if type(operator) is not OpOverload:  # others look at their arguments first
            return found[0]
        bound = f"_{space}_{name}_{overload}"
        names[bound] = NATIVE.get(operator, kernel_of(operator))
        return bound

    source = _OPERATOR.sub(bind, code.src)
    exec(compile(source, "<program>", "exec"), names)
    return functools.partial(names["forward"], module)
