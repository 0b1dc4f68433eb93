"""What runs again behind the loss, on some lines of text: the same numbers, and less to hold."""

from collections.abc import Callable

import pytest
from torch import fx
from tuning import block, program_of, tuned

from altprop.passes.tune.hold_least import hold_least
from altprop.passes.tune.keep_masks import keep_masks
from altprop.passes.tune.live_peak import LivePeak
from altprop.passes.tune.rerun import Rerun

CHAIN = """
    take x = input x: float32 (N, 3)
    a = aten.sin(x): float32 (N, 3)
    b = aten.cos(a): float32 (N, 3)
    loss = aten.sum(b): float32 ()
    e = aten.mul.Tensor(a, loss): float32 (N, 3)
    d = aten.mul.Tensor(b, e): float32 (N, 3)
    give loss loss = loss
    give output d = d
"""


def loss_of(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.name == "loss")


def again(*names: str) -> Callable[[fx.Graph], int]:
    """A step that lets all that may run again do so, or the operators of some names."""

    def run(graph: fx.Graph) -> int:
        rerun = Rerun(graph, loss_of(graph))
        return rerun.apply(rerun.plan({node for node in rerun.inside if not names or node.name in names}))

    return run


def test_operators_run_again_in_front_of_the_first_that_reads_them() -> None:
    expected = """
        a = aten.sin(x): float32 (N, 3)
        b = aten.cos(a): float32 (N, 3)
        loss = aten.sum(b): float32 ()
        a_1 = aten.sin(x): float32 (N, 3)
        e = aten.mul.Tensor(a_1, loss): float32 (N, 3)
        b_1 = aten.cos(a_1): float32 (N, 3)
        d = aten.mul.Tensor(b_1, e): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    assert tuned(CHAIN, again()) == (2, block(expected))


def test_what_is_kept_does_not_run_again() -> None:
    count, text = tuned(CHAIN, again("b"))
    assert count == 1
    assert "b_1 = aten.cos(a)" in text


def test_what_draws_random_numbers_runs_once() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        made = aten.native_dropout(x, 0.5, True): tuple[float32 (N, 3); bool (N, 3)]
        a = operator.getitem(made, 0): float32 (N, 3)
        b = aten.cos(a): float32 (N, 3)
        loss = aten.sum(b): float32 ()
        d = aten.mul.Tensor(b, loss): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    count, text = tuned(lines, again())
    assert count == 1
    assert "b_1 = aten.cos(a)" in text


def test_of_a_dropout_the_mask_is_kept() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        both = aten.native_dropout(x, 0.2, True): tuple[float32 (N, 3); bool (N, 3)]
        a = operator.getitem(both, 0): float32 (N, 3)
        mask = operator.getitem(both, 1): bool (N, 3)
        loss = aten.sum(a): float32 ()
        d = aten.mul.Tensor(a, loss): float32 (N, 3)
        e = aten.mul.Tensor(d, mask): float32 (N, 3)
        give loss loss = loss
        give output e = e
    """
    expected = """
        both = aten.native_dropout(x, 0.2, True): tuple[float32 (N, 3); bool (N, 3)]
        getitem = operator.getitem(both, 1): bool (N, 3)
        mul_tensor = aten.mul.Tensor(x, getitem): float32 (N, 3)
        mul_tensor_1 = aten.mul.Tensor(mul_tensor, 1.25): float32 (N, 3)
        loss = aten.sum(mul_tensor_1): float32 ()
        d = aten.mul.Tensor(mul_tensor_1, loss): float32 (N, 3)
        e = aten.mul.Tensor(d, getitem): float32 (N, 3)
        give loss loss = loss
        give output e = e
    """
    assert tuned(lines, keep_masks) == (1, block(expected))
    for changed in ("0.0, True", "0.2, False", "1.0, True"):
        assert tuned(lines.replace("0.2, True", changed), keep_masks)[0] == 0


def test_of_several_results_the_operator_runs_again() -> None:
    """A result that is taken out twice would be one tensor, which the first reader may write into."""
    lines = """
        take x = input x: float32 (N, 3)
        made = aten.max.dim(x, 1, True): tuple[float32 (N, 1); int64 (N, 1)]
        a = operator.getitem(made, 0): float32 (N, 1)
        loss = aten.sum(a): float32 ()
        d = aten.mul.Tensor(a, loss): float32 (N, 1)
        give loss loss = loss
        give output d = d
    """
    count, text = tuned(lines, again())
    assert count == 2
    assert "a_1 = operator.getitem(made_1, 0)" in text


def test_a_parameter_is_written_behind_what_reads_it_again() -> None:
    lines = """
        take w = parameter w: float32 (3)
        take x = input x: float32 (N, 3)
        a = aten.mul.Tensor(x, w): float32 (N, 3)
        loss = aten.sum(a): float32 ()
        g = aten.mul.Tensor(w, loss): float32 (3)
        shrunk = aten.mul_.Tensor(w, 0.5): float32 (3)
        moved = aten.add_.Tensor(shrunk, g): float32 (3)
        d = aten.mul.Tensor(a, loss): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    expected = """
        a = aten.mul.Tensor(x, w): float32 (N, 3)
        loss = aten.sum(a): float32 ()
        g = aten.mul.Tensor(w, loss): float32 (3)
        a_1 = aten.mul.Tensor(x, w): float32 (N, 3)
        shrunk = aten.mul_.Tensor(w, 0.5): float32 (3)
        moved = aten.add_.Tensor(shrunk, g): float32 (3)
        d = aten.mul.Tensor(a_1, loss): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    assert tuned(lines, again()) == (1, block(expected))


def test_what_is_read_of_a_new_value_is_not_read_again_of_an_old_one() -> None:
    lines = """
        take w = buffer w: float32 (3)
        take x = input x: float32 (N, 3)
        moved = aten.add_.Tensor(w, 1): float32 (3)
        a = aten.mul.Tensor(x, moved): float32 (N, 3)
        loss = aten.sum(a): float32 ()
        d = aten.mul.Tensor(a, loss): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    assert tuned(lines, again())[0] == 0


# The choice


def deep(layers: int, *, backwards: bool) -> str:
    """A chain of layers with updates that read what went into them, in the order of the forward or against it."""
    down = [f"z{i} = aten.sin(z{i - 1}): float32 (N, 1000)" for i in range(1, layers + 1)]
    places = range(layers, 0, -1) if backwards else range(1, layers + 1)
    up = [
        line
        for i in places
        for line in (
            f"e{i} = aten.mul.Tensor(z{i - 1}, loss): float32 (N, 1000)",
            f"g{i} = aten.sum.dim_IntList(e{i}, [0]): float32 (1000)",
        )
    ]
    given = [f"give gradient w{i} = g{i}" for i in range(1, layers + 1)]
    lines = ["take z0 = input x: float32 (N, 1000)", *down, f"loss = aten.sum(z{layers}): float32 ()", *up]
    return "\n".join([*lines, "give loss loss = loss", *given])


@pytest.mark.parametrize(("backwards", "most"), [(False, 4), (True, 10)])
def test_a_deep_chain_is_held_in_few_values(backwards: bool, most: int) -> None:
    """Of 16 activities: two or three in the forward's order, against it about twice the root of them."""
    lines = deep(16, backwards=backwards)
    held = {}

    def measured(graph: fx.Graph) -> int:
        held["before"] = LivePeak(Rerun(graph, loss_of(graph))).bytes({})
        count = hold_least(graph, loss_of(graph))
        held["after"] = LivePeak(Rerun(graph, loss_of(graph))).bytes({})
        return count

    count, _ = tuned(lines, measured)
    value, gradients = 4 * 1000 * 4, 16 * 1000 * 4
    assert 0 < count <= 16
    assert held["before"] >= 15 * value
    assert held["after"] <= most * value + gradients


def test_where_nothing_is_gained_nothing_runs_again() -> None:
    lines = """
        take x = input x: float32 (N, 3)
        a = aten.sin(x): float32 (N, 3)
        loss = aten.sum(a): float32 ()
        d = aten.mul.Tensor(a, loss): float32 (N, 3)
        give loss loss = loss
        give output d = d
    """
    assert tuned(lines, lambda graph: hold_least(graph, loss_of(graph)))[0] == 0


def test_the_peak_that_is_foretold_counts_views_once() -> None:
    program = program_of("""
        take x = input x: float32 (N, 8)
        a = aten.sin(x): float32 (N, 8)
        t = aten.t(a): float32 (8, N) strides (1, 8)
        b = aten.cos(t): float32 (8, N) strides (1, 8)
        loss = aten.sum(b): float32 ()
        give loss loss = loss
    """)
    graph = program.graph.graph
    assert LivePeak(Rerun(graph, loss_of(graph))).bytes({}) == 2 * 4 * 8 * 4
