"""What stands in the place of operators that ONNX does not have.

Each function is plain torch with the arguments and results of the operator; a test compares the two. Operators that
are not here are decomposed as torch.export does, or have an operator in ONNX.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from altprop.compiler.export.decompose import (
    activations,
    attention,
    convolution_backward,
    losses,
    norms,
    pooling,
    recurrent_backward,
    tables,
)

aten = torch.ops.aten
Table = Mapping[Any, Callable[..., Any]]

OWN: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward.convolution_backward,
    aten._native_batch_norm_legit_functional.default: norms.batch_norm,
    aten._native_batch_norm_legit.no_stats: norms.batch_norm_of_a_batch,
    aten.native_batch_norm_backward.default: norms.batch_norm_backward,
    aten.native_layer_norm.default: norms.layer_norm,
    aten.native_layer_norm_backward.default: norms.layer_norm_backward,
    aten.native_group_norm.default: norms.group_norm,
    aten.native_group_norm_backward.default: norms.group_norm_backward,
    aten._weight_norm_interface_backward.default: norms.weight_norm_backward,
    aten.max_pool2d_with_indices_backward.default: pooling.max_pool_backward,
    aten.max_pool3d_with_indices_backward.default: pooling.max_pool_backward,
    aten.adaptive_max_pool2d_backward.default: pooling.adaptive_max_pool_backward,
    aten.adaptive_max_pool3d_backward.default: pooling.adaptive_max_pool_backward,
    aten.avg_pool2d.default: pooling.avg_pool,
    aten.avg_pool3d.default: pooling.avg_pool,
    aten.avg_pool2d_backward.default: pooling.avg_pool_backward,
    aten.avg_pool3d_backward.default: pooling.avg_pool_backward,
    aten._adaptive_avg_pool2d.default: pooling.adaptive_avg_pool,
    aten._adaptive_avg_pool3d.default: pooling.adaptive_avg_pool,
    aten._adaptive_avg_pool2d_backward.default: pooling.adaptive_avg_pool2d_backward,
    aten._adaptive_avg_pool3d_backward.default: pooling.adaptive_avg_pool3d_backward,
    aten._scaled_dot_product_flash_attention_for_cpu.default: attention.flash_for_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention.flash_for_cpu_backward,
    aten._scaled_dot_product_efficient_attention.default: attention.efficient,
    aten._scaled_dot_product_efficient_attention_backward.default: attention.efficient_backward,
    aten._safe_softmax.default: attention.safe_softmax,
    aten.embedding_dense_backward.default: tables.embedding_dense_backward,
    aten._embedding_bag.default: tables.embedding_bag,
    aten._embedding_bag_forward_only.default: tables.embedding_bag,
    aten._embedding_bag_backward.default: tables.embedding_bag_backward,
    aten.threshold_backward.default: activations.threshold_backward,
    aten.nll_loss_forward.default: losses.nll_loss_forward,
    aten.nll_loss2d_forward.default: losses.nll_loss_forward,
    aten.nll_loss_backward.default: losses.nll_loss_backward,
    aten.nll_loss2d_backward.default: losses.nll_loss_backward,
    **recurrent_backward.WRITTEN_OUT,
}

# Operators that ONNX has: left whole, though torch.export could take them apart.
WHOLE = (
    aten.elu.default,
    aten.gelu.default,
    aten._softmax.default,
    aten._log_softmax.default,
    aten.addmm.default,
    aten.embedding.default,
    aten.relu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.leaky_relu.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.stack.default,
    aten.t.default,
    aten.transpose.int,
    aten.clamp.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.where.self,
    aten.constant_pad_nd.default,
)


def table() -> Table:
    """Returns what to take apart, and by what."""
    made: dict[Any, Callable[..., Any]] = dict(torch.export.default_decompositions())
    for operator in WHOLE:
        made.pop(operator, None)
    return {**made, **OWN}
