"""What stands in the place of an operator equals the operator, in float64 and in every form."""

import itertools
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from altprop.compiler.export import threefry
from altprop.compiler.export.decompose import OWN, attention
from altprop.compiler.export.decompose.planar import planar_table

aten = torch.ops.aten


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) * 100 + sum(shape) + seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_same(operator: Any, *args: Any, results: int | None = None, **kwargs: Any) -> None:
    """Compares the operator's results with those of its stand-in, at 1e-10."""
    expected, actual = operator(*args, **kwargs), OWN[operator](*args, **kwargs)
    if isinstance(expected, torch.Tensor):
        expected, actual = (expected,), (actual,)
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        if results is not None and index >= results:
            continue
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, atol=1e-10, rtol=1e-10)


# dimensions, stride, padding, dilation, groups, output padding of the transposed form
CONVOLUTIONS = [
    (1, 1, 0, 1, 1, 0),
    (1, 2, 1, 2, 2, 1),
    (2, 1, 1, 1, 1, 0),
    (2, 2, 1, 1, 1, 1),
    (2, (2, 1), (0, 2), (1, 2), 2, (1, 0)),
    (2, 3, 2, 1, 4, 2),
    (2, 1, 2, 2, 4, 0),
    (3, 1, 1, 1, 2, 0),
    (3, 2, 0, 2, 1, 1),
]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("form", CONVOLUTIONS, ids=str)
def test_convolution_backward(form: tuple[Any, ...], transposed: bool) -> None:
    dims, *rest = form
    stride, padding, dilation, groups, extra = rest
    stride, padding, dilation, extra = (
        list(v) if isinstance(v, tuple) else [v] * dims for v in (stride, padding, dilation, extra)
    )
    extra = extra if transposed else [0] * dims
    x = drawn(3, 8, *(9, 8, 7)[:dims])
    kernel = (3, 2, 3)[:dims]
    weight = drawn(8, 8 // groups, *kernel)
    out = aten.convolution(x, weight, None, stride, padding, dilation, transposed, extra, groups)
    shared = (drawn(*out.shape), x, weight, [8], stride, padding, dilation, transposed, extra, groups)
    assert_same(aten.convolution_backward.default, *shared, [True, True, True])
    made = planar_table()[aten.convolution_backward.default](*shared, [False, True, False])
    torch.testing.assert_close(made[1], aten.convolution_backward(*shared, [False, True, False])[1])
    given = (x, weight, drawn(out.shape[1]), stride, padding, dilation, transposed, extra, groups)
    torch.testing.assert_close(planar_table()[aten.convolution.default](*given), aten.convolution(*given))


def test_executorch_gets_convolutions_as_products() -> None:
    x, weight = drawn(2, 8, 5, 5).requires_grad_(), drawn(4, 8, 3, 3).requires_grad_()

    def gradients(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(aten.convolution(x, weight, None, [2], [1], [1], False, [0], 1).sum(), (x, weight))

    found = {node.target for node in make_fx(gradients, decomposition_table=planar_table())(x, weight).graph.nodes}
    assert aten.bmm.default in found
    assert aten.convolution.default not in found


@pytest.mark.parametrize(("inner", "groups", "kernel"), [(1, 8, 3), (8, 1, 9)])
def test_filters_of_one_channel_and_of_many_places_stay_convolutions(inner: int, groups: int, kernel: int) -> None:
    x, weight = drawn(2, 8, 9, 9), drawn(8, inner, kernel, kernel)
    form = (None, [1], [0], [1], False, [0], groups)
    assert planar_table()[aten.convolution.default](x, weight, *form) is NotImplemented
    backward = planar_table()[aten.convolution_backward.default]
    grad = aten.convolution(x, weight, *form)
    graph = make_fx(lambda *given: backward(*given, [8], *form[1:], [False, True, False])[1])(grad, x, weight).graph
    found = [node for node in graph.nodes if node.target is aten.convolution.default]
    assert [len(node.args[3]) for node in found] == [2], "as many dimensions as the operator has"


def test_executorch_gets_products_and_sums_apart() -> None:
    added, one, other = drawn(5), drawn(3, 4), drawn(4, 5)
    for factors in ({}, {"beta": 0.5, "alpha": 3.0}):
        made = planar_table()[aten.addmm.default](added, one, other, **factors)
        torch.testing.assert_close(made, torch.addmm(added, one, other, **factors))
    graph = make_fx(lambda *given: torch.addmm(*given), decomposition_table=planar_table())(added, one, other).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [aten.mm.default, aten.add.Tensor]


def test_convolution_backward_gives_what_is_asked_for() -> None:
    x, weight = drawn(2, 3, 5, 5), drawn(4, 3, 3, 3)
    grad = drawn(2, 4, 3, 3)
    for mask in itertools.product([False, True], repeat=3):
        assert_same(
            aten.convolution_backward.default,
            grad,
            x,
            weight,
            [4],
            [1, 1],
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            1,
            list(mask),
        )


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm(affine: bool, training: bool) -> None:
    x, grad = drawn(4, 3, 5, 2) * 2 + 1, drawn(4, 3, 5, 2)
    weight, bias = (drawn(3), drawn(3, seed=1)) if affine else (None, None)
    mean, var = drawn(3, seed=2), drawn(3, seed=3).abs() + 0.5
    results = None if training else 1
    assert_same(
        aten._native_batch_norm_legit_functional.default,
        x,
        weight,
        bias,
        mean,
        var,
        training,
        0.1,
        1e-5,
        results=results,
    )
    saved = aten._native_batch_norm_legit_functional(x, weight, bias, mean, var, training, 0.1, 1e-5)[1:3]
    mask = [True, affine, affine]
    assert_same(aten.native_batch_norm_backward.default, grad, x, weight, mean, var, *saved, training, 1e-5, mask)


def test_batch_norm_without_running_statistics() -> None:
    x = drawn(4, 3, 5, 2) * 2 + 1
    assert_same(aten._native_batch_norm_legit.no_stats, x, drawn(3), drawn(3, seed=1), True, 0.1, 1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_threshold_backward(threshold: float) -> None:
    x = torch.where(drawn(4, 5).abs() < 0.3, threshold, drawn(4, 5))
    assert_same(aten.threshold_backward.default, drawn(4, 5, seed=1), x, threshold)


def test_layer_norm() -> None:
    x, grad = drawn(4, 3, 5, 2), drawn(4, 3, 5, 2, seed=1)
    weight, bias = drawn(5, 2), drawn(5, 2, seed=1)
    assert_same(aten.native_layer_norm.default, x, [5, 2], weight, bias, 1e-5)
    _, mean, rstd = aten.native_layer_norm(x, [5, 2], weight, bias, 1e-5)
    assert_same(aten.native_layer_norm_backward.default, grad, x, [5, 2], mean, rstd, weight, bias, [True] * 3)


def test_group_norm() -> None:
    x, grad = drawn(4, 6, 5, 2), drawn(4, 6, 5, 2, seed=1)
    weight, bias = drawn(6), drawn(6, seed=1)
    assert_same(aten.native_group_norm.default, x, weight, bias, 4, 6, 10, 2, 1e-5)
    _, mean, rstd = aten.native_group_norm(x, weight, bias, 4, 6, 10, 2, 1e-5)
    assert_same(aten.native_group_norm_backward.default, grad, x, mean, rstd, weight, 4, 6, 10, 2, [True] * 3)


@pytest.mark.parametrize("dim", [0, 1])
def test_weight_norm(dim: int) -> None:
    direction, grad = drawn(4, 3), drawn(4, 3, seed=1)
    scale = drawn(*((4, 1) if dim == 0 else (1, 3)))
    norms = direction.norm(dim=1 - dim, keepdim=True)
    assert_same(aten._weight_norm_interface_backward.default, grad, direction, scale, norms, dim)


@pytest.mark.parametrize("form", [(2, 2, 0, False), (3, 1, 1, False), (3, 2, 1, True)], ids=str)
def test_max_pool_backward(form: tuple[int, int, int, bool]) -> None:
    kernel, stride, padding, ceil = form
    x = drawn(3, 2, 7, 8)
    places = ([kernel] * 2, [stride] * 2, [padding] * 2, [1, 1], ceil)
    out, indices = aten.max_pool2d_with_indices(x, *places)
    assert_same(aten.max_pool2d_with_indices_backward.default, drawn(*out.shape), x, *places, indices)


AVERAGES = [
    ((2, 2), (), (0, 0), False, True, None),
    ((3, 2), (2, 1), (1, 1), False, True, None),
    ((3, 2), (2, 1), (1, 1), True, False, None),
    ((3, 3), (2, 2), (1, 0), True, True, None),
    ((2, 3), (2, 2), (0, 1), True, True, 5),
]


@pytest.mark.parametrize("form", AVERAGES, ids=str)
def test_average_pool(form: tuple[Any, ...]) -> None:
    x = drawn(3, 2, 7, 8)
    assert_same(aten.avg_pool2d.default, x, *form)
    grad = drawn(*aten.avg_pool2d(x, *form).shape)
    assert_same(aten.avg_pool2d_backward.default, grad, x, *form)


def test_average_pool_in_three_dimensions() -> None:
    x, form = drawn(2, 2, 5, 4, 6), ((2, 2, 3), (2, 1, 2), (1, 0, 1), True, False, None)
    assert_same(aten.avg_pool3d.default, x, *form)
    assert_same(aten.avg_pool3d_backward.default, drawn(*aten.avg_pool3d(x, *form).shape), x, *form)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 9)])
def test_adaptive_pool(size: tuple[int, int]) -> None:
    x, grad = drawn(3, 2, 7, 8), drawn(3, 2, *size)
    assert_same(aten._adaptive_avg_pool2d.default, x, size)
    assert_same(aten._adaptive_avg_pool2d_backward.default, grad, x)
    _, indices = aten.adaptive_max_pool2d(x, size)
    assert_same(aten.adaptive_max_pool2d_backward.default, grad, x, indices)


def test_adaptive_pool_in_three_dimensions() -> None:
    x = drawn(2, 2, 5, 4, 6)
    assert_same(aten._adaptive_avg_pool3d.default, x, (2, 3, 4))
    assert_same(aten._adaptive_avg_pool3d_backward.default, drawn(2, 2, 2, 3, 4), x)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention(causal: bool, mask: bool) -> None:
    query, key, value = drawn(2, 3, 5, 4), drawn(2, 3, 5, 4, seed=1), drawn(2, 3, 5, 4, seed=2)
    hidden = drawn(2, 1, 5, 5, seed=3) if mask else None
    options = {"attn_mask": hidden, "scale": 0.3 if mask else None}
    operator = aten._scaled_dot_product_flash_attention_for_cpu
    assert_same(operator.default, query, key, value, 0.0, causal, **options)
    out, lse = operator(query, key, value, 0.0, causal, **options)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    assert_same(backward, drawn(2, 3, 5, 4, seed=4), query, key, value, out, lse, 0.0, causal, **options)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_gpus_fused_attention(causal: bool, mask: bool) -> None:
    """The operator itself is not on the CPU: what it computes is."""
    query, key, value = (drawn(2, 3, 5, 4, seed=seed).requires_grad_() for seed in range(3))
    bias = drawn(1, 1, 5, 5, seed=3).requires_grad_() if mask else None
    scale = 0.3 if mask else None
    out, lse, *rest = attention.efficient(query, key, value, bias, True, 0.0, causal, scale=scale)
    hidden = bias if bias is not None else torch.zeros(5, 5, dtype=query.dtype)
    hidden = hidden.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")) if causal else hidden
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(query, key, value, hidden, scale=scale)
    torch.testing.assert_close(out, expected)
    grad = drawn(2, 3, 5, 4, seed=4)
    inputs = [x for x in (query, key, value, bias) if x is not None]
    gradients = torch.autograd.grad(expected, inputs, grad)
    wanted = [True, True, True, mask]
    made = attention.efficient_backward(
        grad, query, key, value, bias, out, lse, *rest, 0.0, wanted, causal, scale=scale
    )
    assert (made[3] is None) != mask
    torch.testing.assert_close([x for x in made if x is not None], list(gradients))


def test_dropout_in_a_gpus_fused_attention_is_not_supported() -> None:
    x = drawn(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match=r"dropout_p=0\.5 inside fused attention"):
        attention.efficient(x, x, x, None, True, 0.5)


def test_attention_of_a_row_that_sees_nothing() -> None:
    scores = drawn(2, 3)
    scores[1] = float("-inf")
    assert_same(aten._safe_softmax.default, scores, 1)


@pytest.mark.parametrize("padding", [-1, 2])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding_update(padding: int, by_frequency: bool) -> None:
    indices = torch.tensor([[0, 2, 2], [4, 0, 2]])
    assert_same(aten.embedding_dense_backward.default, drawn(2, 3, 4), indices, 6, padding, by_frequency)


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("padding", [-1, 2])
def test_embedding_bag(mode: int, padding: int) -> None:
    weight, indices, offsets = drawn(6, 4), torch.tensor([0, 2, 2, 4, 0, 5]), torch.tensor([0, 2, 2])
    operator = aten._embedding_bag.default
    args = (weight, indices, offsets, False, mode, False, None, False, padding)
    assert_same(operator, *args, results=1)
    made = operator(*args)[1:]
    rest = (6, False, mode, False, None, padding)
    assert_same(aten._embedding_bag_backward.default, drawn(3, 4), indices, offsets, *made, *rest)


def test_embedding_bag_of_maxima_is_not_supported() -> None:
    with pytest.raises(NotImplementedError, match='mode="max"'):
        OWN[aten._embedding_bag.default](drawn(6, 4), torch.tensor([0]), torch.tensor([0]), False, 2)


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_negative_log_likelihood(shape: tuple[int, ...], weighted: bool, reduction: int) -> None:
    scores = F.log_softmax(drawn(4, 5, *shape), 1)
    target = torch.arange(4 * (6 if shape else 1)).reshape(4, *shape) % 5
    target[0] = -100
    weight = drawn(5).abs() if weighted else None
    forward = aten.nll_loss2d_forward if shape else aten.nll_loss_forward
    backward = aten.nll_loss2d_backward if shape else aten.nll_loss_backward
    assert_same(forward.default, scores, target, weight, reduction, -100)
    total = forward(scores, target, weight, reduction, -100)[1]
    assert_same(backward.default, torch.tensor(1.5).double(), scores, target, weight, reduction, -100, total)


# Known answers: key, counter, rounds, result; from the tests that the authors of the method publish.
ANSWERS = [
    (0, 0, 13, (0x9D1C5EC6, 0x8BD50731)),
    (0, 0, 20, (0x6B200159, 0x99BA4EFE)),
    (0xFFFFFFFF, 0xFFFFFFFF, 13, (0xFD36D048, 0x2D17272C)),
    (0xFFFFFFFF, 0xFFFFFFFF, 20, (0x1CB996FC, 0xBB002BE7)),
]


@pytest.mark.parametrize(("key", "counter", "rounds", "answer"), ANSWERS)
def test_random_words_are_the_published_ones(key: int, counter: int, rounds: int, answer: tuple[int, int]) -> None:
    words = threefry.threefry([torch.tensor(key)] * 2, [torch.tensor(counter)] * 2, rounds)
    assert tuple(int(word) for word in words) == answer


def test_random_numbers_are_uniform_and_depend_on_seed_step_and_site() -> None:
    first = threefry.uniform(torch.tensor(1), torch.tensor(2), 3, [999, 7])
    assert first.shape == (999, 7)
    assert abs(float(first.mean()) - 0.5) < 0.02
    assert abs(float(first.var()) * 12 - 1) < 0.05
    assert 0 <= float(first.min()) < float(first.max()) < 1
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4)]
    for seed, step, site in others:
        assert not torch.equal(first, threefry.uniform(torch.tensor(seed), torch.tensor(step), site, [999, 7]))
    torch.testing.assert_close(first, threefry.uniform(torch.tensor(1), torch.tensor(2), 3, [999, 7]), atol=0, rtol=0)


def test_dropout_keeps_the_share_that_it_should() -> None:
    random = threefry.Random(torch.tensor(1), torch.tensor(0))
    x = torch.ones(100, 100)
    out, mask = random.native_dropout(x, 0.3, True)
    assert abs(float(mask.float().mean()) - 0.7) < 0.02
    torch.testing.assert_close(out, mask / 0.7)
    kept, mask = random.native_dropout(x, 0.3, False)
    assert torch.equal(kept, x)
    assert bool(mask.all())
    assert random.sites == 1


def test_normal_numbers() -> None:
    made = threefry.Random(torch.tensor(1), torch.tensor(0)).randn_like(torch.empty(200, 200))
    assert abs(float(made.mean())) < 0.02
    assert abs(float(made.std()) - 1) < 0.02
    assert abs(float((made**4).mean()) - 3) < 0.15
    assert bool(torch.isfinite(made).all())
