"""The kernel that eager runs for an LSTM on the CPU in float32 and bfloat16, input product included.

torch makes the *workspace* that its derivative reads only where gradients are enabled, and does not say how large it is.
Here it is made where a layer trains, and has the shape of the gates, which are a part of it; the rest lies behind, in the
same storage. A workspace that has lost its storage, as copies have, is made again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from altprop.passes.recurrent.steps import product_flops

Optional = torch.Tensor | None

_LSTM = 2  # the kernel's number for it

_bytes: dict[Any, int] = {}  # how large workspaces are, by the sizes of the layer


@torch.library.custom_op("altprop::onednn_lstm", mutates_args=())
def onednn_lstm(
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w_ih: torch.Tensor,
    w_hh: torch.Tensor,
    b_ih: Optional,
    b_hh: Optional,
    reverse: bool,
    train: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs a layer.

    Args:
        x: (steps, batch, inputs).
        h: (batch, units), the first state.
        c: (batch, units), the first cells.
        w_ih: (4 units, inputs).
        w_hh: (4 units, units).
        b_ih: (4 units,).
        b_hh: (4 units,).
        reverse: whether the last place runs first.
        train: whether to make a workspace; without one the kernel is another, with other roundings.

    Returns:
        The states (steps, batch, units), the last state, the last cells, and the workspace.
    """
    given = (x, h, c, w_ih, w_hh, b_ih, b_hh, reverse)
    with torch.set_grad_enabled(train):
        states, last, cells, workspace = _run(*given)
    return states, last, cells, _as_gates(workspace, *given) if train else x.new_empty(0)


@onednn_lstm.register_fake
def _(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool, train: bool
) -> tuple[torch.Tensor, ...]:
    workspace = x.new_empty(*x.shape[:2], w_hh.shape[0]) if train else x.new_empty(0)
    return x.new_empty(*x.shape[:2], h.shape[1]), h.new_empty(h.shape), c.new_empty(c.shape), workspace


def _run(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool) -> Any:
    biased = b_ih is not None
    biases = (b_ih, b_hh) if biased else (torch.zeros_like(w_ih), torch.zeros_like(w_hh))
    dense = (one.contiguous() for one in (x, h, c))
    x, h, c = dense
    units = h.shape[1]
    return torch.ops.aten.mkldnn_rnn_layer.default(
        x, w_ih, w_hh, *biases, h, c, reverse, [], _LSTM, units, 1, biased, False, False, True
    )


def _as_gates(workspace: torch.Tensor, x: torch.Tensor, h: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The workspace in the shape of the gates, with all of it behind."""
    shape = (*x.shape[:2], 4 * h.shape[1])
    size = x.itemsize * shape[0] * shape[1] * shape[2]
    _bytes[_sizes(x, h)] = workspace.numel()
    if workspace.numel() < size:
        workspace = torch.cat([workspace, workspace.new_empty(size - workspace.numel())])
    return workspace[:size].view(x.dtype).view(shape)


def _sizes(x: torch.Tensor, h: torch.Tensor) -> Any:
    return (*x.shape, h.shape[1], x.dtype)


def _whole(workspace: torch.Tensor, *given: Any) -> torch.Tensor:
    """The workspace as the kernel takes it: as it is, or made again from the layer's arguments."""
    needed = _bytes.get(_sizes(*given[:2]))
    if needed is None or workspace.untyped_storage().nbytes() < needed or not workspace.is_contiguous():
        with torch.enable_grad():
            made: torch.Tensor = _run(*given)[3]
        return made
    return workspace.view(torch.uint8)


@torch.library.custom_op("altprop::onednn_lstm_backward", mutates_args=())
def onednn_lstm_backward(
    d_states: Optional,
    d_h: Optional,
    d_c: Optional,
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    w_ih: torch.Tensor,
    w_hh: torch.Tensor,
    b_ih: Optional,
    b_hh: Optional,
    reverse: bool,
    states: torch.Tensor,
    last: torch.Tensor,
    cells: torch.Tensor,
    workspace: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs the kernel's own derivative.

    Args:
        d_states: error at the states.
        d_h: error at the last state.
        d_c: error at the last cells.
        x: argument of the layer, as are those behind it.
        h: see `x`.
        c: see `x`.
        w_ih: see `x`.
        w_hh: see `x`.
        b_ih: see `x`.
        b_hh: see `x`.
        reverse: see `x`.
        states: result of the layer, as are those behind it.
        last: see `states`.
        cells: see `states`.
        workspace: see `states`.

    Returns:
        Errors or gradients of `x`, `h`, `c`, `w_ih`, `w_hh`, and of each of the biases.
    """
    space = _whole(workspace, x, h, c, w_ih, w_hh, b_ih, b_hh, reverse)
    biased = b_ih is not None
    biases = (b_ih, b_hh) if biased else (torch.zeros_like(w_ih), torch.zeros_like(w_hh))
    x, h, c = (one.contiguous() for one in (x, h, c))
    dx, dw_ih, dw_hh, db, _, dh, dc = torch.ops.aten.mkldnn_rnn_layer_backward.default(
        x, w_ih, w_hh, *biases, h, c, states, last, cells, d_states, d_h, d_c, reverse,
        _LSTM, h.shape[1], 1, biased, True, False, [], False, space,
    )  # fmt: skip
    made = (dx, dh, dc, dw_ih, dw_hh, db)  # in float32, whatever the layer's type is
    return tuple(one.to(x.dtype) for one in made)  # type: ignore[return-value]


@onednn_lstm_backward.register_fake
def _(d_states: Any, d_h: Any, d_c: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any) -> Any:
    made: list[torch.Tensor] = [one.new_empty(one.shape) for one in (x, h, c, w_ih, w_hh)]
    return (*made, w_hh.new_empty(w_hh.shape[0]))


def fits(tensors: Sequence[torch.Tensor], projected: bool) -> bool:
    """Whether eager runs this kernel for an LSTM of these tensors, input first."""
    dtype = tensors[0].dtype
    available = torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
    known = dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return available and known and not projected and all(one.device.type == "cpu" for one in tensors)


@register_flop_formula(torch.ops.altprop.onednn_lstm)  # type: ignore[untyped-decorator]
def _(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any, **out: Any) -> int:
    return product_flops(x, w_ih, w_hh)


@register_flop_formula(torch.ops.altprop.onednn_lstm_backward)  # type: ignore[untyped-decorator]
def _(d_states: Any, d_h: Any, d_c: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any, **out: Any) -> int:
    return 2 * product_flops(x, w_ih, w_hh)
