"""Operators that a trace of derivatives would take apart; here they, and their derivatives, stay one kernel each.

* Resizing of images: torch's tracer writes the kernels out, and some derivatives cannot say their own shape where the
  batch is symbolic.
* Group norm, SiLU and Mish: torch's differentiation in a trace writes their derivatives out so that they could be
  differentiated again, which costs time, and for group norm changes shapes in place.
* Bags of embeddings, whose other results are integers, which torch's differentiation in a trace refuses.
* Learners, whose targets for their input stand in a derivative's place (`altprop.ir.learner_operators`).
* Recurrent layers (`altprop.passes.recurrent`), whose errors arrive at the states of all steps and at the last ones.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from altprop.ir import learner_operators  # noqa: F401  it registers the operators
from altprop.ir.operators import short_name
from altprop.ir.torch_private import below_autograd, register_op_impl, suggest_memory_format
from altprop.passes.cut.operator_kinds import is_moving
from altprop.passes.cut.without_derivative import is_custom, lacks_formula
from altprop.passes.derive.custom import differentiable
from altprop.passes.derive.interpret import FREE_STRIDES
from altprop.passes.recurrent.derivatives import DERIVATIVES as RECURRENT
from altprop.passes.recurrent.derivatives import Derivative

aten = torch.ops.aten

_RESIZING = (
    *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
    *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)


def _derivative_of_resizing(kernel: Any) -> Derivative:
    def derivative(args: Sequence[Any], results: Sequence[Any], cotangents: Any, asked: Sequence[bool]) -> list[Any]:
        x, size, *rest = args
        return [kernel(cotangents[0], size, list(x.shape), *rest)]

    return derivative


def _derivative_of_unit(kernel: Any) -> Derivative:
    return lambda args, results, cotangents, asked: [kernel(cotangents[0], args[0])]


def _derivative_of_group_norm(
    args: Sequence[Any], results: Sequence[Any], cotangents: Any, asked: Sequence[bool]
) -> Sequence[Any]:
    cotangent, *of_statistics = cotangents
    x, weight, _bias, samples, channels, positions, groups, _epsilon = args
    _, mean, deviation = results
    made: list[Any] = [None, None, None]
    if cotangent is not None:
        sizes, mask = (samples, channels, positions, groups), [asked[0], asked[1], asked[2]]
        made = list(
            aten.native_group_norm_backward.default(
                cotangent.contiguous(), x.contiguous(), mean, deviation, weight, *sizes, mask
            )
        )
    if asked[0]:
        rows = x.reshape(samples, groups, channels // groups * positions)
        for found in _errors_of_statistics(rows, mean, deviation, *of_statistics):
            spread = found.expand(rows.shape).reshape(x.shape)
            made[0] = spread if made[0] is None else made[0] + spread
    return made


def _errors_of_statistics(
    rows: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, of_mean: Any, of_deviation: Any
) -> Iterator[torch.Tensor]:
    """What a group's values hear of their mean and of one over their deviation, (samples, groups, values or 1)."""
    if of_mean is not None:
        yield of_mean.unsqueeze(-1) / rows.shape[-1]
    if of_deviation is not None:
        factor = -of_deviation * deviation**3 / rows.shape[-1]
        yield factor.unsqueeze(-1) * (rows - mean.unsqueeze(-1))


def _derivative_of_bags(
    args: Sequence[Any], results: Sequence[Any], cotangents: Any, asked: Sequence[bool]
) -> Sequence[Any]:
    given: list[Any] = [*args, *_OF_BAGS[len(args) - 3 :]]
    table, places, starts, by_count, mode, sparse, weights, _, padding = given
    _, bags, sizes, largest = results
    made: list[Any] = [None] * len(args)
    if asked[0]:
        options = (table.shape[0], by_count, mode, sparse, weights, padding)
        made[0] = aten._embedding_bag_backward(cotangents[0], places, starts, bags, sizes, largest, *options)
    if len(asked) > 6 and asked[6]:
        made[6] = aten._embedding_bag_per_sample_weights_backward(
            cotangents[0], table, places, starts, bags, mode, padding
        )
    return made


_OF_BAGS = (False, 0, False, None, False, -1)  # what the last arguments of `_embedding_bag` are if they are left out


def _crossing(args: Sequence[Any], results: Sequence[Any], cotangents: Any, asked: Sequence[bool]) -> Sequence[Any]:
    return [torch.ops.altprop.crossing(args[0], results[0], cotangents[0], args[1])]


# By operator: how many of its results carry errors, the first ones, and its derivative.
_DERIVATIVES: dict[Any, tuple[int, Derivative]] = {
    **{
        getattr(aten, name).default: (1, _derivative_of_resizing(getattr(aten, f"{name}_backward").default))
        for name in _RESIZING
    },
    aten.silu.default: (1, _derivative_of_unit(aten.silu_backward.default)),
    aten.mish.default: (1, _derivative_of_unit(aten.mish_backward.default)),
    aten.native_group_norm.default: (3, _derivative_of_group_norm),
    aten._embedding_bag.default: (1, _derivative_of_bags),
    torch.ops.altprop.predict.default: (1, _crossing),
    **RECURRENT,
}


class _Whole(torch.autograd.Function):
    """An operator of `_DERIVATIVES`, run below the layer that takes operators apart."""

    @staticmethod
    def forward(kernel: Any, *args: Any) -> Any:
        with below_autograd():
            return kernel(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.operator, *args = inputs
        results = output if isinstance(output, tuple) else (output,)
        ctx.set_materialize_grads(False)
        ctx.felt, _ = _DERIVATIVES[ctx.operator]
        ctx.mark_non_differentiable(*results[ctx.felt :])
        ctx.others = [None if isinstance(arg, torch.Tensor) else arg for arg in args]
        ctx.places = [i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.places), *results)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        args, count = list(ctx.others), len(ctx.places)
        for place, value in zip(ctx.places, ctx.saved_tensors[:count], strict=True):
            args[place] = value
        asked = ctx.needs_input_grad[1:]
        with below_autograd():
            _, derivative = _DERIVATIVES[ctx.operator]
            made = derivative(args, ctx.saved_tensors[count:], cotangents[: ctx.felt], asked)
        found = [value if wanted else None for value, wanted in zip(made, asked, strict=False)]
        return (None, *found, *[None] * (len(args) - len(found)))


def _whole(kernel: Any) -> Callable[..., Any]:
    return lambda *args: _Whole.apply(kernel, *args)


def _fake_of_resizing(mode: Any, function: Any, cotangent: torch.Tensor, size: Any, shape: Any, *rest: Any) -> Any:
    layout = suggest_memory_format(cotangent)
    with mode:
        return torch.empty(shape, dtype=cotangent.dtype, device=cotangent.device, memory_format=layout)


for _name in _RESIZING:
    register_op_impl(getattr(aten, f"{_name}_backward").default)(_fake_of_resizing)


def _fake_attention(mode: Any, function: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """The kernel lays its result out as it finds the queries; torch's own description says otherwise."""
    batch, heads, length, _ = query.shape
    kind = torch.float64 if query.dtype == torch.float64 else torch.float32
    with mode:
        log_sum = torch.empty((batch, length, heads), dtype=kind, device=query.device).transpose(1, 2)
        return torch.empty_like(query), log_sum


register_op_impl(aten._scaled_dot_product_flash_attention_for_cpu.default)(_fake_attention)


class _Table(dict[Any, Callable[..., Any]]):
    """Operators that are not torch's, or that have no derivative, are looked at when they come."""

    def get(self, operator: Any, default: Any = None) -> Any:
        """Returns what to run in place of an operator."""
        other = is_custom(operator) or lacks_formula(operator)
        return differentiable(operator) if other else super().get(operator, default)


WHOLE: Mapping[Any, Callable[..., Any]] = _Table(
    {
        **{kernel: _whole(kernel) for kernel in _DERIVATIVES},
        # Kernels of attention choose the strides of their result; where a trace chooses others, a view may be a copy.
        **FREE_STRIDES,
        # The form that torch takes where nothing asks for a derivative keeps less than the derivative reads.
        aten._embedding_bag_forward_only.default: _whole(aten._embedding_bag.default),
    }
)
"""What to run in place of each of these operators while a region is traced."""


def free_strides_of_attention(graph: fx.Graph) -> int:
    """Lets views of what attention returns be copies: its kernels lay results out as they find the queries.

    Returns:
        How many views were rewritten.
    """
    made: set[fx.Node] = set()
    count = 0
    for node in graph.nodes:
        if "_scaled_dot_product" in short_name(node) or (is_moving_item(node) and made & set(node.all_input_nodes)):
            made.add(node)
            if node.target is aten.view.default:
                node.target = aten.reshape.default
                count += 1
    return count


def is_moving_item(node: fx.Node) -> bool:
    """Whether the operator moves data, or takes one of several results."""
    return node.target is operator.getitem or is_moving(node)
