"""What is refused before capture, module by module, since torch would capture it wrongly or not say why it cannot."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from altprop.ir.errors import CaptureError
from altprop.ir.torch_private import BatchNormBase
from altprop.ir.user_lines import place_in_text

_PRODUCTS = (
    *(torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default),
    *(torch.ops.aten.baddbmm.default, torch.ops.aten.convolution.default, torch.ops.aten.mv.default),
)

INNER_GRADIENT = "torch.autograd.grad is called inside the forward"
FOREIGN_OBJECT = (
    "the forward uses an object of torch's own that no program takes, such as a torch.Generator. Draw without "
    "generator=, and seed torch before the step; or give what the object makes as an input."
)


def refuse_modules(model: nn.Module) -> None:
    """Refuses modules whose forward a graph cannot say.

    Raises:
        CaptureError: names the module, and what to write instead.
    """
    for name, module in model.named_modules():
        reason = _reason(module)
        if reason:
            raise CaptureError(f'module "{name or type(model).__name__}" ({type(module).__name__}) {reason}')


def _reason(module: nn.Module) -> str:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        if module.sparse and module.weight.requires_grad:
            return "has sparse gradients, which are not supported: use sparse=False."
        if module.max_norm is not None:
            return "rescales its own weight in the forward (max_norm): rescale it after each step instead."
    averages = isinstance(module, BatchNormBase) and module.momentum is None
    if averages and module.training and module.track_running_stats:
        return "averages over all batches so far (momentum=None), by a count that no graph reads: give a momentum."
    return ""


def refuse_numbers(graph: fx.Graph) -> None:
    """Refuses tensors that become Python numbers: `x.item()`, `x.tolist()`, `float(x)`.

    Raises:
        CaptureError: names the line.
    """
    for node in graph.nodes:
        if node.target in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default) and node.users:
            place = place_in_text(node.meta.get("stack_trace") or "")
            raise CaptureError(
                f"the model turns a tensor into a Python number{place}, by item(), tolist() or the like; which one, "
                "only its values tell: keep it a tensor, or compute the number outside the model."
            )


def refuse_mixed_types(graph: fx.Graph) -> None:
    """Refuses products of numbers of two types, which fail when they are run.

    Raises:
        CaptureError: names the types and the line.
    """
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _PRODUCTS:
            values = [one.meta.get("val") for one in node.all_input_nodes]
            kinds = [value.dtype for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]
            if len(set(kinds)) > 1:
                named = " and ".join(str(kind).removeprefix("torch.") for kind in dict.fromkeys(kinds))
                place = place_in_text(node.meta.get("stack_trace") or "")
                raise CaptureError(
                    f"the model multiplies {named}{place}: give inputs of the type of its parameters, or use autocast."
                )


def refuse_integers(outputs: Iterable[Any]) -> None:
    """Refuses models that return nothing that a loss could be differentiated at.

    Raises:
        CaptureError: says what they return.
    """
    tensors = [value for value in outputs if isinstance(value, torch.Tensor)]
    if not any(value.is_floating_point() for value in tensors):
        kinds = ", ".join(dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in tensors)) or "no tensor"
        raise CaptureError(
            f"the model returns {kinds}, and no loss has a gradient there: return its scores, and take argmax outside."
        )


class RefuseInnerGradients(TorchFunctionMode):
    """Refuses `torch.autograd.grad` in a forward: it would have to be differentiated a second time."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Lets every other function pass."""
        if function is torch.autograd.grad:
            raise RuntimeError(f"{INNER_GRADIENT}.")
        return function(*args, **(kwargs or {}))
