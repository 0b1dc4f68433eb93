"""A trace of ours leaves `nn.Module` alone; a trace inside of it, or of somebody else, does not."""

import threading

import torch
from torch import fx, nn

from altprop.ir.alone import alone
from altprop.ir.torch_private import make_fx
from altprop.ir.tracing import trace

X = torch.zeros(2, 3)
CALL = nn.Module.__call__


def names(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op.startswith("call")]


def seen_within(layer: nn.Module, seen: list[bool], x: torch.Tensor) -> list[torch.Tensor]:
    seen.append(nn.Module.__call__ is CALL)
    return [layer(x)]


def test_modules_stay_as_they_are_while_a_graph_is_traced() -> None:
    layer, seen = nn.Linear(3, 2), list[bool]()
    with alone():
        ours = trace(lambda x: seen_within(layer, seen, x), [X])
    theirs = make_fx(lambda x: seen_within(layer, seen, x))(X)
    assert seen == [True, False]
    assert names(ours) == names(theirs) != []
    assert [str(node) for node in ours.graph.nodes] == [str(node) for node in theirs.graph.nodes]
    assert nn.Module.__call__ is CALL


def test_a_trace_inside_sees_modules() -> None:
    """A loss may trace something itself, as torch.fx does it."""
    layers, found = nn.Sequential(nn.Linear(3, 2), nn.Tanh()), list[list[str]]()

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        found.append(names(fx.symbolic_trace(layers)))
        return [torch.relu(x)]

    with alone():
        assert names(trace(function, [X])) == ["aten.relu.default"]
    assert found == [["0", "1"]]


def test_another_thread_traces_as_ever() -> None:
    layers, found = nn.Sequential(nn.Linear(3, 2), nn.Tanh()), list[list[str]]()

    def function(x: torch.Tensor) -> list[torch.Tensor]:
        other = threading.Thread(target=lambda: found.append(names(fx.symbolic_trace(layers))))
        other.start()
        other.join()
        return [torch.relu(x)]

    with alone():
        trace(function, [X])
    assert found == [["0", "1"]]


def test_without_the_lock_nothing_is_patched() -> None:
    seen: list[bool] = []
    trace(lambda x: seen_within(nn.Tanh(), seen, x), [X])
    assert seen == [False]
