"""What is tidied behind the translation: unread operators, names of results, momenta."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_nets import compiled

import altprop
from altprop.compiler.export.fold_momentum import MomentumFolder, named, without_unread


def op(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


CONSTANTS = {
    "c": numpy_helper.from_array(np.array(0.9, np.float32), "c"),
    "row": numpy_helper.from_array(np.array([0.9, 0.8], np.float32), "row"),
    "one": numpy_helper.from_array(np.array(1.0, np.float32), "one"),
    "size": numpy_helper.from_array(np.array([1, 3]), "size"),
    "axis": numpy_helper.from_array(np.array([0]), "axis"),
}
MOMENTUM = [
    op("Gemm", "a b", "g", transA=1),
    op("Mul", "g s", "scaled"),
    op("Mul", "m c", "old"),
    op("Add", "old scaled", "new"),
]
SHAPES = {"a": (3, 4), "b": (3, 2), "m": (4, 2), "s": (), "v": (4,)}


def fold(nodes: Sequence[NodeProto], results: Sequence[str] = ("new",)) -> list[NodeProto]:
    return MomentumFolder(CONSTANTS, {"s", "c"}.__contains__)(nodes, list(results))


def run(nodes: Sequence[NodeProto]) -> Any:
    heads = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in SHAPES.items()]
    tails = [helper.make_tensor_value_info("new", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "test", heads, tails, list(CONSTANTS.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    generator = np.random.default_rng(0)
    given = {name: np.asarray(generator.standard_normal(shape), np.float32) for name, shape in SHAPES.items()}
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]


def test_a_momentum_is_one_product() -> None:
    made = fold(MOMENTUM)
    assert [node.op_type for node in made] == ["Mul", "Gemm"]
    np.testing.assert_allclose(run(made), run(MOMENTUM), atol=1e-6)
    turned = [*MOMENTUM[:3], op("Add", "scaled old", "new")]
    np.testing.assert_allclose(run(fold(turned)), run(MOMENTUM), atol=1e-6)
    unscaled = [MOMENTUM[0], MOMENTUM[2], op("Add", "old g", "new")]
    assert [node.op_type for node in fold(unscaled)] == ["Gemm"]
    np.testing.assert_allclose(run(fold(unscaled)), run(unscaled), atol=1e-6)


def test_the_momentum_of_a_bias_is_one_product_with_a_row_of_ones() -> None:
    nodes = [
        op("Expand", "one size", "ones"),
        op("Gemm", "ones a", "g"),
        op("Squeeze", "g axis", "sum"),
        op("Mul", "sum s", "scaled"),
        op("Mul", "v c", "old"),
        op("Add", "old scaled", "new"),
    ]
    folder = MomentumFolder(CONSTANTS, {"s", "c"}.__contains__, {"ones"})
    made = folder(nodes, ["new"])
    assert [node.op_type for node in made] == ["Expand", "Mul", "Gemm", "Squeeze"]
    np.testing.assert_allclose(run(made), run(nodes), atol=1e-6)
    assert fold(nodes) == nodes, "another product that is reshaped stays"


@pytest.mark.parametrize(
    "other",
    [
        [MOMENTUM[0], MOMENTUM[1], op("Mul", "m row", "old"), MOMENTUM[3]],
        [MOMENTUM[0], op("Mul", "g m", "scaled"), *MOMENTUM[2:]],
        [op("MatMul", "b b", "g"), *MOMENTUM[1:]],
    ],
    ids=["a factor for each column", "a product of two matrices", "not a Gemm"],
)
def test_what_is_no_momentum_stays(other: Sequence[NodeProto]) -> None:
    assert fold(other) == list(other)


@pytest.mark.parametrize("read", ["g", "scaled", "old"])
def test_what_somebody_else_reads_stays(read: str) -> None:
    assert fold(MOMENTUM, ["new", read]) == MOMENTUM


def test_unread_operators_go() -> None:
    nodes = [op("Neg", "x", "a"), op("Abs", "a", "b"), op("Exp", "a", "c")]
    assert without_unread(nodes, ["c"]) == [nodes[0], nodes[2]]


def test_results_get_their_names() -> None:
    nodes, new = named([op("Neg", "x", "a"), op("Abs", "a", "b")], {"y": "b", "z": "b", "w": "x", "v": "a"})
    assert new == {"b": "y", "a": "v"}
    written = [(n.op_type, list(n.input), list(n.output)) for n in nodes]
    assert written == [
        ("Neg", ["x"], ["v"]),
        ("Abs", ["v"], ["y"]),
        ("Identity", ["y"], ["z"]),
        ("Identity", ["x"], ["w"]),
    ]


def test_a_step_file_is_tidy(tmp_path: Path) -> None:
    net = compiled("mlp", altprop.optim.SGD(lr=0.1, momentum=0.9), "dfa")
    graph = onnx.load(net.export(tmp_path / "step.onnx")).graph
    read = {name for node in graph.node for name in node.input} | {head.name for head in graph.output}
    assert all(set(node.output) & read for node in graph.node)
    assert {tensor.name for tensor in graph.initializer} <= read
    assert sum(node.op_type == "Gemm" and len(node.input) == 3 and "next" in node.output[0] for node in graph.node) == 3
