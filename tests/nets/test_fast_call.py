"""Programs whose operators are looked up beforehand: the same bits, and no path left to follow."""

import copy
import inspect
from typing import Any

import kept
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO

import altprop
from altprop.runtime.backends.fast_call import NATIVE, straight


@pytest.mark.parametrize("name", ["conv_bn_dropout", "residual", "encoder_layer"])
def test_the_same_bits(name: str) -> None:
    case = ZOO[name]
    net = kept.compile(case.model(), "reclra", example_inputs=case.inputs(4), loss=case.loss)
    program = net.graph.programs["forward"]
    holders = {"parameter": net.model.get_parameter, "buffer": net.model.get_buffer}
    holders["constant"] = net.graph.captured.constants.__getitem__
    results = []
    for function in (program.graph.forward, straight(program.graph)):
        given = iter(case.inputs(4))
        args = [holders[s.kind](s.name).clone() if s.kind in holders else next(given) for s in program.inputs]
        torch.manual_seed(0)
        with torch.no_grad():
            results.append(function(*args))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_operators_are_bound() -> None:
    case = ZOO["mlp_tanh"]
    net = kept.compile(
        case.model(), "dfa", example_inputs=case.inputs(4), loss=case.loss, optimizer=altprop.optim.SGD(momentum=0.9)
    )
    module = net.graph.programs["step"].graph
    function = straight(module).func  # type: ignore[attr-defined]
    named = set(inspect.unwrap(function).__code__.co_names)
    overloads = {node.target for node in module.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    bound = {str(overload).replace(".", "_") for overload in overloads}
    assert {f"_{name}" for name in bound} <= named
    assert "ops" not in named


def test_what_looks_at_its_arguments_first_is_called_by_its_path() -> None:
    graph = torch.fx.Graph()
    value = graph.placeholder("value")
    graph.output((graph.call_function(torch.add, (value, 1)),))
    (result,) = straight(torch.fx.GraphModule(torch.nn.Module(), graph))(torch.ones(2))
    assert torch.equal(result, torch.full((2,), 2.0))


_ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "add.Tensor": ((torch.ones(2, 2), torch.ones(2, 2)), {"alpha": 2}),
    "add_.Tensor": ((torch.ones(2, 2), torch.ones(2, 2)), {"alpha": 2.5}),
    "addmm.default": ((torch.ones(2), torch.ones(2, 2), torch.ones(2, 2)), {}),
    "addmm_.default": ((torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2)), {"beta": 0.9, "alpha": 0.1}),
    "addmv_.default": ((torch.ones(2), torch.ones(2, 2), torch.ones(2)), {"beta": 0.9, "alpha": 0.1}),
    "mm.default": ((torch.ones(2, 2), torch.ones(2, 2)), {}),
    "mul.Tensor": ((torch.ones(2, 2), 0.5), {}),
    "mul_.Tensor": ((torch.ones(2, 2), 3), {}),
    "new_ones.default": ((torch.ones(2, 2), [3]), {"pin_memory": False}),
    "relu.default": ((torch.ones(2),), {}),
    "relu_.default": ((torch.ones(2),), {}),
    "sub.Tensor": ((torch.ones(2, 2), torch.ones(2, 2)), {"alpha": 0.1}),
    "sub_.Tensor": ((torch.ones(2, 2), torch.ones(2, 2)), {"alpha": 0.1}),
    "sym_size.int": ((torch.ones(2, 3), 1), {}),
    "t.default": ((torch.ones(2, 3),), {}),
    "tanh.default": ((torch.ones(2),), {}),
    "tanh_.default": ((torch.ones(2),), {}),
    "view.default": ((torch.ones(2, 3), [6]), {}),
}


class Called(TorchDispatchMode):
    """Remembers the operators that ran, with what arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append((func, args[1:], kwargs))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("operator", NATIVE, ids=str)
def test_torchs_own_functions_call_the_operators_they_stand_for(operator: torch._ops.OpOverload) -> None:
    args, kwargs = copy.deepcopy(_ARGUMENTS[str(operator).removeprefix("aten.")])
    expected = operator(*copy.deepcopy(args), **kwargs)
    with torch.no_grad(), Called() as called:
        found = NATIVE[operator](*args, **kwargs)
    if isinstance(expected, int):
        assert found == expected
        return
    assert torch.equal(found, expected)
    ((ran, _, _),) = called.found
    assert ran is operator
