"""The steps that tune updates and kernels, each on some lines of text: nothing is compiled."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import fx
from tuning import block, program_of, tuned

from altprop.passes.tune.channels_last import choose_layout, store_feedback
from altprop.passes.tune.fuse import fuse_updates
from altprop.passes.tune.kernels import choose_kernels
from altprop.passes.tune.recompute import recompute_activities
from altprop.passes.tune.reuse import reuse_memory
from altprop.passes.tune.simplify import simplify

NOT_HERE = "without oneDNN there is nothing to lay out"


onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason=NOT_HERE)


def test_what_another_reads_is_not_fused() -> None:
    lines = """
        take m = state momentum:w: float32 (3, 7)
        take n = state momentum:v: float32 (3, 7)
        take d = input d: float32 (N, 3)
        take x = input x: float32 (N, 7)
        t = aten.t(d): float32 (3, N) strides (1, 3)
        gradient = aten.mm(t, x): float32 (3, 7)
        one = aten.add_.Tensor(m, gradient): float32 (3, 7)
        two = aten.add_.Tensor(n, gradient): float32 (3, 7)
    """
    assert tuned(lines, fuse_updates)[0] == 0


# Reuse


def test_results_overwrite_what_nothing_reads_any_more() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        take d = input d: float32 (N, 3)
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu(h): float32 (N, 3)
        e = aten.sin(d): float32 (N, 3)
        g = aten.threshold_backward(e, z, 0): float32 (N, 3)
        a = aten.sub.Tensor(d, g): float32 (N, 3)
        m = aten.minimum(x, a): float32 (N, 3)
        give output m = m
    """
    expected = """
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu_(h): float32 (N, 3)
        e = aten.sin(d): float32 (N, 3)
        g = aten.threshold_backward.grad_input(e, z, 0, grad_input=e): float32 (N, 3)
        a = aten.sub.out(d, g, out=g): float32 (N, 3)
        m = aten.minimum.out(x, a, out=a): float32 (N, 3)
        give output m = m
    """
    assert tuned(lines, reuse_memory) == (4, block(expected))


@pytest.mark.parametrize(
    ("h", "y", "k"),
    [
        ("aten.sin(x): float32 (N, 4)", "aten.relu(h): float32 (N, 4)", "aten.sin(h)"),  # is read later
        ("aten.view(x, [-1, 4]): float32 (N, 4)", "aten.relu(h): float32 (N, 4)", "aten.sin(r)"),  # is the caller's
        ("aten.sin(x): float32 (N, 4)", "aten.mul.Tensor(h, h): float32 (N, 4)", "aten.sin(r)"),  # is read twice
        ("aten.floor(r): float32 (N, 1)", "aten.mul.Tensor(h, x): float32 (N, 4)", "aten.sin(r)"),  # is too small
        ("aten.gt.Scalar(x, 0): bool (N, 4)", "aten.mul.Tensor(h, 0.5): float32 (N, 4)", "aten.sin(r)"),  # no floats
        ("aten.expand(r, [-1, 4]): float32 (N, 4) strides (1, 0)", "aten.relu(h): float32 (N, 4)", "aten.sin(x)"),
    ],
)
def test_memory_that_is_needed_is_kept(h: str, y: str, k: str) -> None:
    lines = f"""
        take x = input x: float32 (N, 4)
        r = aten.sum.dim_IntList(x, [1], True): float32 (N, 1)
        h = {h}
        y = {y}
        k = {k}
        give output y = y
        give output k = k
    """
    assert tuned(lines, reuse_memory)[0] == 0


# Recompute


def test_a_cheap_activity_is_made_again_where_its_preactivation_is_kept() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu(h): float32 (N, 3)
        loss = aten.sum(z): float32 ()
        moved = aten.sub.Tensor(h, loss): float32 (N, 3)
        e = aten.sub.Tensor(z, moved): float32 (N, 3)
        give loss loss = loss
        give output e = e
    """
    expected = """
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu(h): float32 (N, 3)
        loss = aten.sum(z): float32 ()
        moved = aten.sub.Tensor(h, loss): float32 (N, 3)
        z_1 = aten.relu(h): float32 (N, 3)
        e = aten.sub.Tensor(z_1, moved): float32 (N, 3)
        give loss loss = loss
        give output e = e
    """
    assert tuned(lines, by_loss(recompute_activities)) == (1, block(expected))


def test_an_activity_whose_preactivation_is_gone_is_kept() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu(h): float32 (N, 3)
        loss = aten.sum(z): float32 ()
        e = aten.sub.Tensor(z, loss): float32 (N, 3)
        give loss loss = loss
        give output e = e
    """
    assert tuned(lines, by_loss(recompute_activities))[0] == 0


def by_loss(step: Callable[[fx.Graph, fx.Node], int]) -> Callable[[fx.Graph], int]:
    """A step that asks for the node of the loss."""

    def run(graph: fx.Graph) -> int:
        return step(graph, next(node for node in graph.nodes if node.name == "loss"))

    return run


# Kernels


LARGE = """
    take x = input x: float32 (N, 128)
    take w = parameter w: float32 (64, 128)
    take b = parameter b: float32 (64)
    take v = parameter v: float32 (8, 64)
    t = aten.t(w): float32 (128, 64) strides (1, 128)
    h = aten.addmm(b, x, t): float32 (N, 64)
    z = aten.tanh(h): float32 (N, 64)
    u = aten.t(v): float32 (64, 8) strides (1, 64)
    y = aten.mm(z, u): float32 (N, 8)
    give output y = y
"""


@onednn
def test_large_products_take_their_activation_along() -> None:
    expected = """
        t = aten.t(w): float32 (128, 64) strides (1, 128)
        t_default = aten.t(t): float32 (64, 128)
        _linear_pointwise_default = mkldnn._linear_pointwise(x, t_default, b, "tanh", [], ""): float32 (N, 64)
        u = aten.t(v): float32 (64, 8) strides (1, 64)
        y = aten.mm(_linear_pointwise_default, u): float32 (N, 8)
        give output y = y
    """
    assert tuned(LARGE, choose_kernels, within=1e-3) == (1, block(expected))


@onednn
def test_a_compiler_gets_large_products_as_operators_of_their_own() -> None:
    lines = LARGE.replace("aten.addmm(b, x, t)", "aten.mm(x, t)").replace("take b = parameter b: float32 (64)\n", "")
    count, text = tuned(lines, functools.partial(choose_kernels, opaque=True), within=1e-3)
    assert count == 1
    assert "h = altprop.product(x, t): float32 (N, 64)" in text
    assert "y = aten.mm(z, u)" in text


@pytest.mark.parametrize(("old", "new"), [("float32", "float64"), ("128", "12")])
def test_small_products_and_those_in_double_precision_stay(old: str, new: str) -> None:
    assert tuned(LARGE.replace(old, new), choose_kernels)[0] == 0


# Layout


IMAGES = """
    take x = input x: float32 (N, 4, 16, 16)
    take w = parameter w: float32 (8, 4, 3, 3)
    take e = input e: float32 (N, 10)
    take feedback = feedback b->a: float32 (10, 8, 16, 16)
    h = aten.convolution(x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1): float32 (N, 8, 16, 16)
    flat = aten.reshape(feedback, [10, 2048]): float32 (10, 2048)
    message = aten.mm(e, flat): float32 (N, 2048)
    d = aten.view(message, [-1, 8, 16, 16]): float32 (N, 8, 16, 16)
    s = aten.mul.Tensor(h, d): float32 (N, 8, 16, 16)
    give observed s = s
"""


LAST = "strides (2048, 1, 128, 8)"


@onednn
def test_images_are_laid_channels_last(golden: Callable[[str, str], None]) -> None:
    """The message is born so, since the columns of its feedback, which are few, are put into that order."""
    count, text = tuned(IMAGES, functools.partial(choose_layout, may_move=True), within=1e-4)
    assert count == 2
    golden("tune-layout", text)


def test_a_layout_that_may_not_move_stays() -> None:
    assert tuned(IMAGES, functools.partial(choose_layout, may_move=False))[0] == 0


@onednn
def test_feedback_is_stored_as_its_products_read_it() -> None:
    program = program_of(IMAGES)
    graph = program.graph.graph
    choose_layout(graph, may_move=True)
    (feedback,) = [node for node in graph.nodes if node.name == "feedback"]
    simplify(graph)  # its plain form is not read any more
    assert store_feedback(graph, [[feedback]]) == 1
    text = str(program)
    assert f"take feedback = feedback b->a: float32 (10, 8, 16, 16) {LAST}" in text
    assert "permute_default = aten.permute(feedback, [0, 2, 3, 1]): float32 (10, 16, 16, 8)\n" in text
