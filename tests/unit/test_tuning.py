"""The steps that tune a program, each on some lines of text: nothing is compiled.

`tuned` checks, before and behind each step, the laws of programs, the forms of all values against a run, and the
numbers.
"""

import pytest
from torch import fx
from tuning import block, program_of, tuned

from altprop.compiler.export.decompose.planar import where_moved
from altprop.passes.tune.fuse import fuse_updates
from altprop.passes.tune.join_projections import join_projections
from altprop.passes.tune.masks import narrow_masks
from altprop.passes.tune.merge import merge_twins
from altprop.passes.tune.separate_results import separate_results
from altprop.passes.tune.simplify import simplify


def join(graph: fx.Graph) -> int:
    """Joins products with the feedback of a program."""
    return join_projections(graph, [node for node in graph.nodes if node.name.startswith("feedback")])


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


def test_what_is_only_moved_is_shared_within_a_region() -> None:
    """Kept from one region to the next, moved copies of an activity would take the memory of many."""
    lines = """
        take x = input x: float32 (N, 6)
        a = aten.constant_pad_nd(x, [1, 1], 0.0): float32 (N, 8) in 'one'
        b = aten.constant_pad_nd(x, [1, 1], 0.0): float32 (N, 8) in 'one'
        c = aten.constant_pad_nd(x, [1, 1], 0.0): float32 (N, 8) in 'two'
        d = aten.exp(x): float32 (N, 6) in 'one'
        e = aten.exp(x): float32 (N, 6) in 'two'
        f = aten.add.Tensor(a, b): float32 (N, 8)
        g = aten.add.Tensor(f, c): float32 (N, 8)
        h = aten.add.Tensor(d, e): float32 (N, 6)
        give output g = g
        give output h = h
    """
    assert tuned(lines, lambda graph: merge_twins(graph, where_moved))[0] == 2
    assert tuned(lines, merge_twins)[0] == 3


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


def test_views_of_views_of_a_joined_projection_may_copy() -> None:
    lines = """
        take e = input e: float32 (N, 3)
        take feedback = feedback c->a: float32 (3, 5)
        take feedback_1 = feedback c->b: float32 (3, 4)
        a = aten.mm(e, feedback): float32 (N, 5)
        b = aten.mm(e, feedback_1): float32 (N, 4)
        column = aten.unsqueeze(b, 2): float32 (N, 4, 1)
        flat = aten.view(column, [-1, 1]): float32 (4*N, 1)
        give output a = a
        give output b = flat
    """
    assert "flat = aten.reshape(column, [-1, 1])" in tuned(lines, join, within=1e-5)[1]


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
