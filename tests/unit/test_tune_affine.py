"""The gradients of an affine in front of a layer, without the layer's input gradient; on lines of text."""

import pytest
from tuning import program_of, tuned

from altprop.passes.tune.affine import spare_input_gradients

CLOSE = 1e-3  # of sums of 192 products

NORM = """
    take x = input x: float32 (N, 32, 6)
    take e = input e: float32 (32*N, 5)
    take gamma = parameter gamma: float32 (6)
    take beta = parameter beta: float32 (6)
    take w = parameter w: {w}
    norm = aten.native_layer_norm(x, [6], gamma, beta, 1e-05): tuple[float32 (N, 32, 6); float32 (N, 32, 1); float32 (N, 32, 1)]
    y = operator.getitem(norm, 0): float32 (N, 32, 6)
    mean = operator.getitem(norm, 1): float32 (N, 32, 1)
    deviation = operator.getitem(norm, 2): float32 (N, 32, 1)
    size = aten.sym_size.int(x, 0)
    rows = operator.mul(size, 32)
    flat = aten.view(y, [rows, 6]): float32 (32*N, 6)
"""  # noqa: E501
BEHIND = """
    back = aten.native_layer_norm_backward(g, x, [6], mean, deviation, gamma, beta, {mask}): tuple[{dx}; float32 (6); float32 (6)]
    dgamma = operator.getitem(back, 1): float32 (6)
    dbeta = operator.getitem(back, 2): float32 (6)
    give gradient w = dw
    give gradient gamma = dgamma
    give gradient beta = dbeta
"""  # noqa: E501
ALONE = BEHIND.format(mask="[False, True, True]", dx="None")
LINEAR = """
    product = aten.mm(e, w): float32 (32*N, 6)
    g = aten.view(product, [size, 32, 6]): float32 (N, 32, 6)
    turned = aten.t(e): float32 (5, 32*N) strides (1, 5)
    dw = aten.mm(turned, flat): float32 (5, 6)
"""
OUT_IN = NORM.format(w="float32 (5, 6)")
TURNED = """
    w_turned = aten.t(w): float32 (5, 6) strides (1, 5)
    product = aten.mm(e, w_turned): float32 (32*N, 6)
    g = aten.view(product, [size, 32, 6]): float32 (N, 32, 6)
    turned = aten.t(flat): float32 (6, 32*N) strides (1, 6)
    dw = aten.mm(turned, e): float32 (6, 5)
"""


def ordered(*blocks: str) -> str:
    """Some blocks as one program: inputs first, results last."""
    lines = [line.strip() for block in blocks for line in block.strip().splitlines()]
    rank = {"take": 0, "give": 2}
    return "\n".join(sorted(lines, key=lambda line: rank.get(line.partition(" ")[0], 1)))


def products(text: str) -> int:
    return text.count("aten.mm(")


@pytest.mark.parametrize(
    "lines",
    [ordered(OUT_IN, LINEAR, ALONE), ordered(NORM.format(w="float32 (6, 5)"), TURNED, ALONE)],
    ids=["out-in", "in-out"],
)
def test_a_norm_asks_for_no_input_gradient(lines: str) -> None:
    count, text = tuned(lines, spare_input_gradients, within=CLOSE)
    assert count == 1
    assert products(text) == 1
    assert "layer_norm_backward" not in text


def test_projections_of_one_norm_are_added_up() -> None:
    second = """
        take e_two = input e_two: float32 (32*N, 7)
        take w_two = parameter w_two: float32 (7, 6)
        product_two = aten.mm(e_two, w_two): float32 (32*N, 6)
        two = aten.view(product_two, [size, 32, 6]): float32 (N, 32, 6)
        g = aten.add.Tensor(one, two): float32 (N, 32, 6)
        turned_two = aten.t(e_two): float32 (7, 32*N) strides (1, 7)
        dw_two = aten.mm(turned_two, flat): float32 (7, 6)
        give gradient w_two = dw_two
    """
    lines = ordered(OUT_IN, LINEAR.replace("g = ", "one = "), second, ALONE)
    count, text = tuned(lines, spare_input_gradients, within=CLOSE)
    assert count == 2
    assert products(text) == 2
    assert text.count("native_layer_norm(") == 1  # for both updates; nothing reads the forward's here


def test_a_weight_may_be_written_right_behind_its_update() -> None:
    """The norm's own gradients then come later, from what the weight was."""
    write = "written = aten.add_.Tensor(w, dw, alpha=-0.5): float32 (5, 6)"
    lines = ordered(OUT_IN, LINEAR, write, ALONE.replace("give gradient w = dw", ""))
    count, text = tuned(lines, spare_input_gradients, within=CLOSE)
    assert count == 1
    assert text.index("aten.mv(") < text.index("aten.add_.Tensor(w")


SCALE = """
    take x = input x: float32 (N, 32, 6)
    take e = input e: float32 (32*N, 5)
    take gamma = parameter gamma: float32 (6)
    take w = parameter w: float32 (5, 6)
    y = aten.mul.Tensor(x, gamma): float32 (N, 32, 6)
    size = aten.sym_size.int(x, 0)
    rows = operator.mul(size, 32)
    flat = aten.view(y, [rows, 6]): float32 (32*N, 6)
"""
SUMMED = """
    scaled = aten.mul.Tensor(g, x): float32 (N, 32, 6)
    dgamma = aten.sum.dim_IntList(scaled, [0, 1], True): float32 (1, 1, 6)
    give gradient w = dw
    give gradient gamma = dgamma
"""


def test_a_scale_asks_for_no_input_gradient() -> None:
    """An RMS norm is one in programs."""
    count, text = tuned(ordered(SCALE, LINEAR, SUMMED), spare_input_gradients, within=CLOSE)
    assert count == 1
    assert products(text) == 1


GIVEN = "give output g = g"
OTHER = "take other = input o: float32 (32*N, 6)", LINEAR.replace("(turned, flat)", "(turned, other)")


@pytest.mark.parametrize(
    "lines",
    [
        ordered(OUT_IN, LINEAR, BEHIND.format(mask="[True, True, True]", dx="float32 (N, 32, 6)")),
        ordered(OUT_IN, LINEAR, GIVEN, ALONE),
        ordered(OUT_IN, *OTHER, ALONE),
        ordered(SCALE, LINEAR, GIVEN, SUMMED),
    ],
    ids=["message", "result", "another operand", "scale"],
)
def test_an_input_gradient_that_others_need_stays(lines: str) -> None:
    assert tuned(lines, spare_input_gradients)[0] == 0


def test_of_few_rows_the_product_is_the_shorter_way() -> None:
    lines = ordered(OUT_IN, LINEAR, ALONE).replace("32*N", "2*N").replace(" 32", " 2")
    assert spare_input_gradients(program_of(lines).graph.graph) == 0
