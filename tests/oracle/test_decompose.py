"""Decomposing in one trace: the same bits as torch's own way, and writes that become new values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from zoo import ZOO
from zoo_architectures import ARCHITECTURES
from zoo_cases import Case
from zoo_operators import OPERATORS

from altprop.compiler.capture import capture as capturing
from altprop.compiler.capture import decompose as decomposing
from altprop.compiler.capture.decompose import decompose, decompose_by_torch
from altprop.compiler.capture.functional import NotFunctionalError, functional
from altprop.compiler.capture.known_values import known_value, record
from altprop.ir.alone import alone
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.operators import writes
from altprop.ir.structures import open_dataclasses

FAST = ("conv_bn_dropout", "shared_twice", "attention")


def run(captured: CapturedGraph, model: nn.Module, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """What the model returns, and its new buffers by name."""
    owned = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    given = dict(zip(captured.inputs, leaves, strict=True)) | dict(captured.constants)
    names = {**captured.parameters, **captured.buffers}
    args = [
        owned[names[node.name]].detach() if node.name in names else given.get(node.name)  # None for a token of checks
        for node in captured.graph.nodes
        if node.op == "placeholder"
    ]
    torch.manual_seed(3)
    with torch.no_grad():
        returned = fx.Interpreter(fx.GraphModule(nn.Module(), captured.graph)).run(*args)
    updates = sorted(zip(captured.buffer_updates.values(), returned, strict=False), key=lambda pair: pair[0])
    return [*(value for _, value in updates), *returned[len(updates) :]]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c.name, marks=() if c.name in FAST else pytest.mark.full)
        for c in (*ZOO.values(), *ARCHITECTURES.values(), *OPERATORS)
    ],
)
def test_same_bits_as_torch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = case.model(), case.inputs(4)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    open_dataclasses((args, kwargs))
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    ways: list[Callable[..., object]] = [decompose, decompose_by_torch]
    made = []
    for way in ways:
        monkeypatch.setattr(capturing, "decompose", way)
        with alone():
            captured = capturing.capture(model, args, kwargs)
        made.append(run(captured, model, leaves))
    assert len(made[0]) == len(made[1])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


class Reordered(nn.Module):
    """Attention, which the export takes apart and we do not: what follows lies in memory otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, 8) to the same."""
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(heads, heads, heads)
        return mixed.transpose(1, 2).contiguous().view(x.shape[0], -1, 8).tanh()


KNOWN = {
    "attention": lambda: (Reordered(), (torch.randn(3, 5, 8),)),
    "images": lambda: (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), (torch.randn(3, 1, 8, 8),)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_values_are_those_that_would_be_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = KNOWN[name]()
    made = []
    for known in (known_value, lambda node, now: None):
        monkeypatch.setattr(decomposing, "known_value", known)
        with alone():
            graph = capturing.capture(model, inputs).graph
        made.append([(str(node), str(node.target), str(node.args), form(node.meta.get("val"))) for node in graph.nodes])
    assert made[0] == made[1]


def form(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.stride()} {value.requires_grad}"
    return str([form(one) for one in value]) if isinstance(value, tuple | list) else str(value)


def test_operators_outside_the_table_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(decomposing, "record", lambda *given: told.append(str(given[0])) or record(*given))
    with alone():
        capturing.capture(*KNOWN["images"]())
    assert told == ["aten.relu.default"]


def traced(function: Callable[..., object], *inputs: torch.Tensor) -> fx.Graph:
    return make_fx(function)(*inputs).graph


def check(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rewrites a function's writes, compares its result, and returns new values of its inputs by name."""
    graph = traced(function, *inputs)
    written = functional(graph)
    assert not any(writes(node) for node in graph.nodes)
    output = next(node for node in graph.nodes if node.op == "output")
    returned = output.args[0]
    output.args = ((returned, *written.values()),)
    graph.lint()
    result, *new = fx.GraphModule(nn.Module(), graph)(*(x.clone() for x in inputs))
    copies = [x.clone() for x in inputs]
    assert torch.equal(result, function(*copies))
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, value in zip(written, new, strict=True):
        assert torch.equal(value, copies[placeholders.index(node)])
    return {node.name: value for node, value in zip(written, new, strict=True)}


X = torch.linspace(-2, 2, 12).reshape(3, 4)


def test_an_activation_in_place() -> None:
    assert check(lambda x: (x * 2).relu_() + 1, X) == {}


def test_a_buffer_that_is_counted_and_read() -> None:
    assert set(check(lambda x, n: x * n.add_(1).mul_(2) + n, X, torch.tensor(3.0))) == {"n_1"}


def test_a_buffer_that_is_copied_into() -> None:
    check(lambda x, b: b.copy_(x[0].double()) + 1, X, torch.zeros(3, 4, dtype=torch.float64))


def test_batch_norm_twice_over_the_same_statistics() -> None:
    def twice(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = torch.ops.aten._native_batch_norm_legit(x, None, None, mean, var, True, 0.1, 1e-5)[0] + mean
        return x

    assert len(check(twice, X, torch.zeros(4), torch.ones(4))) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (y := x * 2, y[0].add_(1), y)[-1],  # seen through the whole
        lambda x: (y := x * 2, z := y.view(4, 3), y.add_(1), z)[-1],  # seen through an earlier view
        lambda x: (x[0].add_(1), x * 2)[-1],  # an input, through a view
        lambda x: (x * 2).bernoulli_(0.5),  # no form that makes a new value
    ],
)
def test_what_is_seen_through_another_view_is_left_to_torch(function: Callable[..., object]) -> None:
    with pytest.raises(NotFunctionalError):
        functional(traced(function, X))


class Sliced(nn.Module):
    """Writes into a part of a value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        y[:, 0] = 0
        return y.tanh()


def test_a_program_that_is_left_to_torch_is_captured_all_the_same() -> None:
    model = Sliced()
    captured = capturing.capture(model, (X,))
    assert torch.equal(run(captured, model, [X])[0], model(X))
