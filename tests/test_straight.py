"""Programs whose operators are looked up beforehand: the same bits, and no path left to follow."""

import inspect

import pytest
import torch
from zoo import ZOO

import altprop
from altprop.runtime.straight import straight


@pytest.mark.parametrize("name", ["conv_bn_dropout", "residual", "encoder_layer"])
def test_the_same_bits(name: str) -> None:
    case = ZOO[name]
    net = altprop.compile(case.model(), "reclra", example_inputs=case.inputs(4), loss=case.loss)
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
    net = altprop.compile(
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
