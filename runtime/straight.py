"""A program as one Python function whose operators are looked up beforehand.

Generated code names an operator by its path, `torch.ops.aten.add.Tensor`, and calls it through a Python method. That
takes longer than a short operator runs. Here every operator is a name of the function's own, bound to what torch calls
in the end.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

Function = Callable[..., Sequence[Any]]

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)(?=\()")


def straight(module: fx.GraphModule) -> Function:
    """Returns a program's forward, with the same operators on the same values."""
    code = module.graph.python_code("self")
    names: dict[str, Any] = dict(code.globals)

    def bind(found: re.Match[str]) -> str:
        space, name, overload = found.groups()
        operator = getattr(getattr(getattr(torch.ops, space), name), overload)
        if type(operator) is not torch._ops.OpOverload:  # others look at their arguments first
            return found[0]
        bound = f"_{space}_{name}_{overload}"
        names[bound] = operator._op
        return bound

    source = _OPERATOR.sub(bind, code.src)
    exec(compile(source, "<program>", "exec"), names)
    return functools.partial(names["forward"], module)
