"""Random models of NNSmith: graphs of operators whose shapes fit, drawn by a solver.

It needs `pip install nnsmith`. NNSmith draws operators of all types; here all tensors are float64, operators that have
no derivative at all, such as comparisons, are left out, and layers come more often. Models without a parameter or
without a batch are drawn again. What follows from constants alone is not returned.
"""

import contextlib
import functools
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from suite_cases import EQUAL, FAILS, Behind, Case, has_batch, loss, refusal, seed_all, short
from torch import nn

import altprop
from altprop.ir.errors import CompileError

COUNT, SHARE = 300, 10  # models; of one entry
NODES, ELEMENTS = 12, 512
CHOICES = {"And", "Or", "Xor", "Equal", "Greater", "Less", "Where", "ArgMin", "ArgMax"}
CASTS = {"CastBool", "CastF32", "CastI32", "CastI64"}
LAYERS = {"Conv1d", "NCHWConv2d", "Linear", "BatchNorm2d", "PReLU", "PTMatMul"}
OFTEN = 6  # layers are drawn so many times more often


class Drawn(nn.Module):
    """A model of NNSmith, as what it calls in order.

    Args:
        net: NNSmith's own module, which measures and checks what it computes.

    Attributes:
        given: an input for each name, drawn by NNSmith.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.calls = [(call, list(given), list(made)) for call, given, made, _ in net.instructions]
        self.layers = nn.ModuleList([call for call, _, _ in self.calls if isinstance(call, nn.Module)])
        self.inputs = list(net.input_like)
        felt = set(self.inputs)
        for _, given, made in self.calls:
            felt.update(made if felt & set(given) else ())
        self.outputs = [name for name in net.output_like if name in felt]  # others are made of constants alone
        self.given = [tensor.double() for tensor in net.get_random_inps(base="center").values()]

    def forward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """All values that follow from the inputs and that nothing reads."""
        values = dict(zip(self.inputs, tensors, strict=True))
        for call, given, made in self.calls:
            result = call(*[values[name] for name in given])
            values |= zip(made, result if isinstance(result, list | tuple) else [result], strict=True)
        return [values[name] for name in self.outputs]


@functools.cache
def smith() -> Any:
    """NNSmith's generator and operators; what it prints while it looks for them is dropped."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnsmith.graph_gen import model_gen
        from nnsmith.materialize.torch import TorchModelCPU
        from nnsmith.narrow_spec import auto_opset

        TorchModelCPU.add_seed_setter()
        operators = sorted(auto_opset(TorchModelCPU), key=lambda one: one.__name__)

    def drawn(seed: int) -> Any:
        chosen = [one for one in operators if one.__name__ not in CHOICES | CASTS]
        chosen += [one for one in operators if one.__name__ in LAYERS] * OFTEN
        options = {"max_nodes": NODES, "max_elem_per_tensor": ELEMENTS, "dtype_choices": ["f64"]}
        made = model_gen(chosen, method="symbolic-cinit", seed=seed, timeout_ms=10_000, **options)
        return TorchModelCPU.from_gir(made.make_concrete()).torch_model

    return drawn


def entries() -> dict[str, Any]:
    """Names of shares of the models: "0-9"."""
    return {f"{first}-{first + SHARE - 1}": first for first in range(0, COUNT, SHARE)}


def models(name: str) -> Iterator[Case]:
    """The models of a share."""
    first = entries()[name]
    return (model(name, number) for number in range(first, first + SHARE))


def model(name: str, number: int) -> Case:
    """The model of a number: the first with a parameter and a batch, of the seeds from 1,000 times the number on."""
    for seed in itertools.count(1000 * number):
        net = Drawn(smith()(seed)).double()
        batched = [place for place, tensor in enumerate(net.given) if has_batch(tensor)]
        if batched and net.outputs and list(net.parameters()):
            return _case(name, number, net, batched[0])
    raise AssertionError("seeds end")


def _case(name: str, number: int, net: Drawn, first: int) -> Case:
    order = [first, *(place for place in range(len(net.given)) if place != first)]

    def call(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
        return net([leaves[order.index(place)] for place in range(len(order))])

    model = Behind(call, [net.given[place] for place in order])
    model.add_module("inner", net)  # its parameters are the model's
    return Case(name, number, model, tuple(net.given[order[place]] for place in model.places))


def each_silent(cases: Sequence[Case]) -> list[str]:
    """What `silent` says of cases."""
    return [silent(case) for case in cases]


def silent(case: Case) -> str:
    """Whether `dfa` with all feedback zero moves nothing that `explain` gives to it: "equal", or why not."""
    assert case.model is not None
    seed_all()
    try:
        net = altprop.compile(case.model, "dfa", example_inputs=case.inputs, loss=loss)
        own = [row.parameter for row in net.explain().rows if row.rule == "dfa"]
        with torch.no_grad():
            for matrix in net.feedback.values():
                matrix.zero_()
        net.model.zero_grad(set_to_none=True)
        loss(net(*case.inputs), torch.zeros(len(case.inputs[0]), dtype=torch.float64)).backward()
    except CompileError as error:
        return refusal(error)
    except Exception as error:
        return f"{FAILS}: {type(error).__name__}: {short(error)}"
    grads = {name: parameter.grad for name, parameter in net.model.named_parameters()}
    moved = [name for name in own if grads[name] is not None and bool(grads[name].any())]
    if moved:
        return f"{FAILS}: {', '.join(moved)} moved"
    return EQUAL if own else "no gradient"
