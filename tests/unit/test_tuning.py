"""The steps that tune a program, each on some lines of text: nothing is compiled.

`tuned` checks, before and behind each step, the laws of programs, the forms of all values against a run, and the
numbers.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import fx
from tuning import block, program_of, tuned

from altprop.passes.tune.channels_last import choose_layout, store_feedback
from altprop.passes.tune.fuse import fuse_updates
from altprop.passes.tune.join_projections import join_projections
from altprop.passes.tune.kernels import choose_kernels
from altprop.passes.tune.masks import narrow_masks
from altprop.passes.tune.merge import merge_twins
from altprop.passes.tune.recompute import recompute_activities
from altprop.passes.tune.reuse import reuse_memory
from altprop.passes.tune.separate_results import separate_results
from altprop.passes.tune.simplify import simplify

NOT_HERE = "without oneDNN there is nothing to lay out"


def join(graph: fx.Graph) -> int:
    """Joins products with the feedback of a program."""
    return join_projections(graph, [node for node in graph.nodes if node.name.startswith("feedback")])


onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason=NOT_HERE)


# Simplify


def test_what_does_nothing_goes() -> None:
    lines = """
        take x = input x: float32 (N, 6)
        one = aten.t(x): float32 (6, N) strides (1, 6)
        two = aten.t(one): float32 (N, 6)
        three = aten.detach(two): float32 (N, 6)
        four = aten.view(three, [-1, 2, 3]): float32 (N, 2, 3)
        five = aten.view(four, [-1, 6]): float32 (N, 6)
        six = aten.mul.Tensor(five, 1): float32 (N, 6)
        unread = aten.exp(six): float32 (N, 6)
        seven = aten.exp(six): float32 (N, 6)
        give output y = seven
    """
    expected = """
        seven = aten.exp(x): float32 (N, 6)
        give output y = seven
    """
    assert tuned(lines, simplify) == (7, block(expected))


def test_what_does_something_stays() -> None:
    lines = """
        take x = input x: float32 (N, 6)
        take k = scalar k
        half = aten._to_copy(x, dtype=torch.float16): float16 (N, 6)
        wide = aten.mul.Tensor(half, 1): float16 (N, 6)
        turned = aten.t(x): float32 (6, N) strides (1, 6)
        same = aten.expand(turned, [6, -1]): float32 (6, N) strides (1, 6)
        dense = aten.clone(turned, memory_format=torch.contiguous_format): float32 (6, N)
        scaled = aten.mul.Tensor(dense, k): float32 (6, N)
        give output a = wide
        give output b = same
        give output c = scaled
    """
    count, text = tuned(lines, simplify)
    assert count == 2
    assert "half = " in text
    assert "dense = " in text
    assert "give output b = turned" in text


def test_results_do_not_share_memory() -> None:
    lines = """
        take x = input x: float32 (N, 6)
        y = aten.exp(x): float32 (N, 6)
        z = aten.t(y): float32 (6, N) strides (1, 6)
        give output a = y
        give output b = z
        give output c = x
    """
    expected = """
        y = aten.exp(x): float32 (N, 6)
        z = aten.t(y): float32 (6, N) strides (1, 6)
        clone_default = aten.clone(z): float32 (6, N) strides (1, 6)
        clone_default_1 = aten.clone(x): float32 (N, 6)
        give output a = y
        give output b = clone_default
        give output c = clone_default_1
    """
    assert tuned(lines, separate_results) == (2, block(expected))


# Merge


def test_twins_become_one() -> None:
    lines = """
        take x = input x: float32 (N, 6)
        a = aten.sum.dim_IntList(x, [1], True): float32 (N, 1)
        b = aten.sum.dim_IntList(x, [1], True): float32 (N, 1)
        c = aten.sum.dim_IntList(x, [1]): float32 (N)
        d = aten.exp(a): float32 (N, 1)
        e = aten.exp(b): float32 (N, 1)
        f = aten.add.Tensor(d, e): float32 (N, 1)
        give output f = f
        give output c = c
    """
    expected = """
        a = aten.sum.dim_IntList(x, [1], True): float32 (N, 1)
        c = aten.sum.dim_IntList(x, [1]): float32 (N)
        d = aten.exp(a): float32 (N, 1)
        f = aten.add.Tensor(d, d): float32 (N, 1)
        give output f = f
        give output c = c
    """
    assert tuned(lines, merge_twins) == (2, block(expected))


@pytest.mark.parametrize(
    "operator",
    [
        "aten.bernoulli.p(x, 0.5): float32 (N, 6)",
        "aten.poisson(p): float32 (N, 6)",
        "aten.scaled_dot_product_attention(q, q, q, None, 0.5): float32 (N, 2, 2, 3)",
        "aten.add_.Tensor(own, x): float32 (N, 6)",
    ],
)
def test_what_draws_or_writes_is_no_twin(operator: str) -> None:
    """Two masks of dropout are two, though they are asked for by the same words."""
    lines = f"""
        take x = input x: float32 (N, 6)
        p = aten.exp(x): float32 (N, 6)
        q = aten.view(x, [-1, 2, 1, 3]): float32 (N, 2, 1, 3)
        q_two = aten.expand(q, [-1, 2, 2, 3]): float32 (N, 2, 2, 3) strides (6, 3, 0, 1)
        own = aten.clone(x): float32 (N, 6)
        a = {operator}
        b = {operator}
        give output a = a
        give output b = b
    """.replace("(q, q, q", "(q_two, q_two, q_two")
    program = program_of(lines)
    assert merge_twins(program.graph.graph) == 0


def test_attention_without_dropout_is_a_twin() -> None:
    attend = "aten.scaled_dot_product_attention(q, q, q): float32 (N, 2, 2, 3)"
    lines = f"""
        take q = input q: float32 (N, 2, 2, 3)
        a = {attend}
        b = {attend}
        c = aten.add.Tensor(a, b): float32 (N, 2, 2, 3)
        give output c = c
    """
    assert tuned(lines, merge_twins)[0] == 1


BACKWARD = """
    take e = input e: float32 (N, 2, 4, 4)
    take x = input x: float32 (N, 3, 4, 4)
    take w = parameter w: float32 (2, 3, 3, 3)
    a = aten.convolution_backward(e, x, w, [2], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]): {a}
    dw = operator.getitem(a, 1): float32 (2, 3, 3, 3)
    b = aten.convolution_backward(e, x, w, [2], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, True]): {b}
    dx = operator.getitem(b, 0): float32 (N, 3, 4, 4)
    give output dw = dw
    give output dx = dx
"""


def test_masks_are_joined_and_narrowed() -> None:
    lines = BACKWARD.format(
        a="tuple[None; float32 (2, 3, 3, 3); None]", b="tuple[float32 (N, 3, 4, 4); None; float32 (2)]"
    )
    count, text = tuned(lines, merge_twins, within=1e-4)
    assert count == 1
    assert "[True, True, True]): tuple[float32 (N, 3, 4, 4); float32 (2, 3, 3, 3); float32 (2)]" in text
    count, text = tuned(lines, narrow_masks)
    assert count == 1
    assert "[True, False, False]): tuple[float32 (N, 3, 4, 4); None; None]" in text


def test_projections_of_one_error_become_one_product() -> None:
    lines = """
        take e = input e: float32 (N, 3)
        take feedback = feedback c->a: float32 (3, 5)
        take feedback_1 = feedback c->b: float32 (4, 3)
        take w = parameter w: float32 (3, 5)
        turned = aten.t(feedback_1): float32 (3, 4) strides (1, 3)
        a = aten.mm(e, feedback): float32 (N, 5)
        b = aten.mm(e, turned): float32 (N, 4)
        c = aten.mm(e, w): float32 (N, 5)
        flat = aten.view(b, [-1]): float32 (4*N)
        give output a = a
        give output b = flat
        give output c = c
    """
    expected = """
        turned = aten.t(feedback_1): float32 (3, 4) strides (1, 3)
        turned_1 = aten.t(feedback_1): float32 (3, 4) strides (1, 3)
        cat_default = aten.cat([feedback, turned_1], 1): float32 (3, 9)
        mm_default = aten.mm(e, cat_default): float32 (N, 9)
        split_with_sizes_default = aten.split_with_sizes(mm_default, [5, 4], 1): {parts}
        getitem = operator.getitem(split_with_sizes_default, 0): float32 (N, 5) strides (9, 1)
        getitem_1 = operator.getitem(split_with_sizes_default, 1): float32 (N, 4) strides (9, 1)
        c = aten.mm(e, w): float32 (N, 5)
        flat = aten.reshape(getitem_1, [-1]): float32 (4*N)
        give output a = getitem
        give output b = flat
        give output c = c
    """
    parts = "list[float32 (N, 5) strides (9, 1); float32 (N, 4) strides (9, 1)]"
    count, text = tuned(lines, join, within=1e-5)
    assert (count, text) == (1, block(expected).format(parts=parts))


def test_wide_projections_stay_apart() -> None:
    lines = """
        take e = input e: float32 (N, 3)
        take feedback = feedback c->a: float32 (3, 50)
        take feedback_1 = feedback c->b: float32 (3, 40)
        a = aten.mm(e, feedback): float32 (N, 50)
        b = aten.mm(e, feedback_1): float32 (N, 40)
        give output a = a
        give output b = b
    """
    assert tuned(lines, join)[0] == 0


# Fuse


def test_a_product_runs_into_its_buffer() -> None:
    lines = """
        take w = parameter w: float32 (3, 7)
        take m = state momentum:w: float32 (3, 7)
        take d = input d: float32 (N, 3)
        take x = input x: float32 (N, 7)
        take rate = scalar minus_lr
        t = aten.t(d): float32 (3, N) strides (1, 3)
        gradient = aten.mm(t, x): float32 (3, 7)
        mean = aten.mul.Tensor(gradient, 0.25): float32 (3, 7)
        decayed = aten.mul_.Tensor(m, 0.9): float32 (3, 7)
        moved = aten.add_.Tensor(decayed, mean): float32 (3, 7)
        new = aten.add_.Tensor(w, moved, alpha=rate): float32 (3, 7)
    """
    expected = """
        t = aten.t(d): float32 (3, N) strides (1, 3)
        addmm__default = aten.addmm_(m, t, x, beta=0.9, alpha=0.25): float32 (3, 7)
        new = aten.add_.Tensor(w, addmm__default, alpha=rate): float32 (3, 7)
    """
    assert tuned(lines, fuse_updates, within=1e-5) == (2, block(expected))


def test_a_sum_over_samples_is_a_product_with_ones() -> None:
    lines = """
        take b = parameter b: float32 (3)
        take m = state momentum:b: float32 (3)
        take d = input d: float32 (N, 3)
        take rate = scalar minus_lr
        total = aten.sum.dim_IntList(d, [0], True): float32 (1, 3)
        gradient = aten.view(total, [3]): float32 (3)
        decayed = aten.mul_.Tensor(m, 0.9): float32 (3)
        moved = aten.add_.Tensor(decayed, gradient): float32 (3)
        new = aten.add_.Tensor(b, moved, alpha=rate): float32 (3)
    """
    expected = """
        sym_size_int = aten.sym_size.int(d, 0): int N
        new_ones_default = aten.new_ones(d, [sym_size_int]): float32 (N)
        t_default = aten.t(d): float32 (3, N) strides (1, 3)
        addmv__default = aten.addmv_(m, t_default, new_ones_default, beta=0.9, alpha=1): float32 (3)
        new = aten.add_.Tensor(b, addmv__default, alpha=rate): float32 (3)
    """
    assert tuned(lines, fuse_updates, within=1e-5) == (1, block(expected))


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
        give output a = a
    """
    expected = """
        h = aten.sin(x): float32 (N, 3)
        z = aten.relu_(h): float32 (N, 3)
        e = aten.sin(d): float32 (N, 3)
        g = aten.threshold_backward.grad_input(e, z, 0, grad_input=e): float32 (N, 3)
        a = aten.sub.out(d, g, out=g): float32 (N, 3)
        give output a = a
    """
    assert tuned(lines, reuse_memory) == (3, block(expected))


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
