"""What is known of operators, by themselves: from their schemas and tags."""

import operator
from typing import Any

import pytest
import torch
from torch import fx

from altprop.ir.operators import (
    argument,
    is_fill,
    is_pointwise,
    is_random,
    is_view,
    operator_called,
    operator_text,
    shared,
    short_name,
    writes,
    written,
)

aten = torch.ops.aten


def call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call of an operator; letters are values."""
    graph = fx.Graph()
    made = {letter: graph.placeholder(letter) for letter in "xyz"}

    def value(arg: Any) -> Any:
        return made.get(arg, arg) if isinstance(arg, str) else arg

    return graph.call_function(target, tuple(map(value, args)), {key: value(arg) for key, arg in kwargs.items()})


def names(found: list[fx.Node]) -> list[str]:
    return [node.name for node in found]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (call(aten.add.Tensor, "x", "y"), []),
        (call(aten.add_.Tensor, "x", "y"), ["x"]),
        (call(aten.sub.out, "x", "y", out="z"), ["z"]),
        (call(aten.tanh_backward.grad_input, "x", "y", grad_input="x"), ["x"]),
        (call(operator.getitem, "x", 0), []),
    ],
)
def test_what_is_written(node: fx.Node, expected: list[str]) -> None:
    assert names(written(node)) == expected
    assert writes(node) is bool(expected)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (call(aten.mul.Tensor, "x", "y"), []),
        (call(aten.t.default, "x"), ["x"]),
        (call(aten.view.default, "y", [1]), ["y"]),
        (call(aten.reshape.default, "y", [1]), ["y"]),
        (call(aten.split_with_sizes.default, "y", [1]), ["y"]),
        (call(aten.add_.Tensor, "x", "y"), ["x"]),
        (call(aten.sub.out, "x", "y", out="z"), ["z"]),
        (call(aten.clone.default, "x"), []),
    ],
)
def test_what_shares_memory(node: fx.Node, expected: list[str]) -> None:
    assert names(shared(node)) == expected
    assert is_view(node) is bool(expected)


def test_a_part_of_several_views_is_a_view() -> None:
    parts = call(aten.split_with_sizes.default, "x", [1, 2])
    part = parts.graph.call_function(operator.getitem, (parts, 0))
    assert shared(part) == [parts]
    norm = call(aten.native_layer_norm.default, "x", [3], None, None, 1e-5)
    assert shared(norm.graph.call_function(operator.getitem, (norm, 0))) == []


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (call(aten.native_dropout.default, "x", 0.5, True), True),
        (call(aten.rand_like.default, "x"), True),
        (call(aten.poisson.default, "x"), True),
        (call(aten.uniform_.default, "x"), True),
        (call(aten.rrelu_with_noise.default, "x", "y"), True),
        (call(aten.native_dropout_backward.default, "x", "y", 2.0), False),
        (call(aten.native_layer_norm.default, "x", [3], None, None, 1e-5), False),
        (call(aten.scaled_dot_product_attention.default, "x", "y", "z"), False),
        (call(aten.scaled_dot_product_attention.default, "x", "y", "z", None, 0.0), False),
        (call(aten.scaled_dot_product_attention.default, "x", "y", "z", None, 0.1), True),
        (call(aten.scaled_dot_product_attention.default, "x", "y", "z", dropout_p=0.1), True),
        (call(operator.getitem, "x", 0), False),
    ],
)
def test_what_draws_random_numbers(node: fx.Node, expected: bool) -> None:
    assert is_random(node) is expected


@pytest.mark.parametrize(
    ("node", "number"),
    [
        (call(aten.zeros_like.default, "x"), 0),
        (call(aten.zeros.default, [2]), 0),
        (call(aten.new_ones.default, "x", [2]), 1),
        (call(aten.full_like.default, "x", 0.0), 0),
        (call(aten.full.default, [2], fill_value=3), 3),
        (call(aten.full.default, [2], "x"), None),
        (call(aten.relu.default, "x"), None),
    ],
)
def test_what_fills(node: fx.Node, number: float | None) -> None:
    assert [one for one in (0, 1, 3) if is_fill(node, one)] == ([] if number is None else [number])


def test_arguments_are_found_however_they_are_given() -> None:
    assert argument(call(aten.add.Tensor, "x", "y", alpha=2), "alpha") == 2
    assert argument(call(aten.sum.dim_IntList, "x", [0], True), "keepdim") is True
    assert argument(call(aten.sum.dim_IntList, "x", [0]), "keepdim") is None


def test_names() -> None:
    assert short_name(call(aten.add_.Tensor, "x", "y")) == "add_"
    assert short_name(call(operator.getitem, "x", 0)) == "getitem"
    assert short_name(call(aten.t.default, "x").args[0]) == ""  # type: ignore[arg-type]
    assert is_pointwise(call(aten.mul.Tensor, "x", "y"))
    assert not is_pointwise(call(aten.mm.default, "x", "y"))


@pytest.mark.parametrize("text", ["aten.add.Tensor", "aten.relu", "operator.getitem", "torch.sym_max", "prims.exp"])
def test_operators_are_found_by_name(text: str) -> None:
    found = operator_called(text)
    assert found is not None
    assert operator_text(found) == text


@pytest.mark.parametrize("text", ["aten.save", "aten.from_file", "aten.add.None", "os.system", "higher_order.cond", ""])
def test_what_no_model_calls_is_not_found(text: str) -> None:
    assert operator_called(text) is None
