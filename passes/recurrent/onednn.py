"""The kernel that eager runs for an LSTM that trains on the CPU in float32 or bfloat16, input product included.

Its derivative reads a *workspace*, whose size torch does not tell and whose contents only the kernel knows. Here it has
the shape that gates and cells would take, (steps, batch, 5 units); the rest of it lies behind, in the same storage.
"""

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

    Returns:
        The states (steps, batch, units), the last state, the last cells, and the workspace.
    """
    x, h, c = (one.contiguous() for one in (x, h, c))
    with torch.enable_grad():  # without gradients torch makes no workspace
        states, last, cells, workspace = torch.ops.aten.mkldnn_rnn_layer.default(
            x, w_ih, w_hh, *_biases(w_ih, w_hh, b_ih, b_hh), h, c, reverse, [],
            _LSTM, h.shape[1], 1, b_ih is not None, False, False, True,
        )  # fmt: skip
    return states, last, cells, _shaped(workspace, x, h)


@onednn_lstm.register_fake
def _(x: Any, h: Any, c: Any, *rest: Any) -> Any:
    states, workspace = (x.new_empty(*x.shape[:2], size) for size in (h.shape[1], 5 * h.shape[1]))
    return states, h.new_empty(h.shape), c.new_empty(c.shape), workspace


def _biases(w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: Optional, b_hh: Optional) -> tuple[torch.Tensor, ...]:
    """Zeros where there are none, as torch passes them to the kernel."""
    return (torch.zeros_like(w_ih), torch.zeros_like(w_hh)) if b_ih is None or b_hh is None else (b_ih, b_hh)


def _shaped(workspace: torch.Tensor, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The workspace as its first numbers, with all of it behind."""
    steps, batch, units = *x.shape[:2], h.shape[1]
    size = x.itemsize * steps * batch * 5 * units
    _bytes[_sizes(x, h)] = workspace.numel()
    if workspace.numel() < size:
        workspace = torch.cat([workspace, workspace.new_empty(size - workspace.numel())])
    return workspace[:size].view(x.dtype).view(steps, batch, 5 * units)


def _sizes(x: torch.Tensor, h: torch.Tensor) -> Any:
    return (*x.shape, h.shape[1], x.dtype)


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

    Raises:
        RuntimeError: the workspace is a copy, which has lost what lay behind it.
    """
    x, h, c = (one.contiguous() for one in (x, h, c))
    whole = workspace.untyped_storage().nbytes() >= _bytes.get(_sizes(x, h), 0) > 0
    if not whole or not workspace.is_contiguous() or workspace.storage_offset():
        raise RuntimeError(
            "what oneDNN keeps of an LSTM for its derivative was copied between forward and backward, and a copy does "
            "not hold all of it: do not move saved tensors, or switch the kernel off before compiling, "
            "torch.backends.mkldnn.enabled = False."
        )
    dx, dw_ih, dw_hh, db, _, dh, dc = torch.ops.aten.mkldnn_rnn_layer_backward.default(
        x, w_ih, w_hh, *_biases(w_ih, w_hh, b_ih, b_hh), h, c, states, last, cells, d_states, d_h, d_c, reverse,
        _LSTM, h.shape[1], 1, b_ih is not None, True, False, [], False, workspace.view(torch.uint8),
    )  # fmt: skip
    made = (dx, dh, dc, dw_ih, dw_hh, db)  # in float32, whatever the layer's type is
    return tuple(one.to(x.dtype) for one in made)


@onednn_lstm_backward.register_fake
def _(d_states: Any, d_h: Any, d_c: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any) -> Any:
    made: list[torch.Tensor] = [one.new_empty(one.shape) for one in (x, h, c, w_ih, w_hh)]
    return (*made, w_hh.new_empty(w_hh.shape[0]))


def fits(x: torch.Tensor) -> bool:
    """Whether eager runs this kernel for an LSTM of such an input, unless its state is projected."""
    known = x.dtype is torch.float32 or (x.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return known and x.device.type == "cpu" and torch.backends.mkldnn.is_available()


@register_flop_formula(torch.ops.altprop.onednn_lstm)
def _(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any, **out: Any) -> int:
    return product_flops(x, w_ih, w_hh)


@register_flop_formula(torch.ops.altprop.onednn_lstm_backward)
def _(d_states: Any, d_h: Any, d_c: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, *rest: Any, **out: Any) -> int:
    return 2 * product_flops(x, w_ih, w_hh)
