"""Fake values that are made at once are those that torch makes, and what is unusual is left to torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from altprop.compiler.quick_fakes import POINTWISE, QUICK, quick_fakes
from altprop.ir import torch_private as private
from altprop.ir.alone import alone

aten = torch.ops.aten
Made = Callable[[torch.Tensor], Any]


@pytest.fixture
def x() -> torch.Tensor:
    """A fake tensor of (N, 4, 6), the batch a symbol."""
    mode = private.FakeTensorMode(shape_env=private.ShapeEnv())
    source, dynamic = private.ConstantSource("batch"), private.DimDynamic.DYNAMIC
    symbol = mode.shape_env.create_symbol(5, source, dynamic_dim=dynamic)
    with mode:
        return torch.empty(mode.shape_env.create_symintnode(symbol, hint=5), 4, 6)


def form(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [form(one) for one in value]
    return (type(value), value.dtype, value.device, *map(str, (value.shape, value.stride(), value.storage_offset())))


def made(x: torch.Tensor, work: Made) -> Any:
    with x.fake_mode, private.enable_python_dispatcher(), torch.no_grad():
        return work(x)


def norm(x: torch.Tensor, channels: int = 4) -> Any:
    owned = [torch.ones(channels, dtype=x.dtype) for _ in range(4)]
    return aten._native_batch_norm_legit(x, *owned, True, 0.1, 1e-5)


def functional_norm(x: torch.Tensor) -> Any:
    owned = [torch.ones(4, dtype=x.dtype) for _ in range(4)]
    return aten._native_batch_norm_legit_functional(x, *owned, True, 0.1, 1e-5)


def rows(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape[0], 6)


WORK: dict[str, Made] = {
    "mm": lambda x: aten.mm(rows(x), torch.empty(6, 3)),
    "mm over the batch": lambda x: aten.mm(rows(x).t(), rows(x)),
    "addmm": lambda x: aten.addmm(torch.empty(3), rows(x), torch.empty(6, 3)),
    "addmm of a row": lambda x: aten.addmm(torch.empty(1, 3), rows(x), torch.empty(6, 3)),
    "addmm scaled": lambda x: aten.addmm(torch.empty(3), rows(x), torch.empty(6, 3), beta=0),
    "batch norm": norm,
    "batch norm out of order": lambda x: norm(x.transpose(0, 2)[:, :, :3]),
    "batch norm, functional": functional_norm,
    "layer norm": lambda x: aten.native_layer_norm(x, [6], torch.ones(6), torch.ones(6), 1e-5),
    "layer norm over two": lambda x: aten.native_layer_norm(x, [4, 6], torch.ones(4, 6), None, 1e-5),
    "layer norm out of order": lambda x: aten.native_layer_norm(x.transpose(1, 2), [4], None, None, 1e-5),
    "transpose": lambda x: aten.transpose(x, 0, -1),
    "t": lambda x: aten.t(rows(x)),
    "permute": lambda x: aten.permute(x, [2, 0, -2]),
    "view, folded": lambda x: aten.view(x, [x.shape[0] * 4, 6]),
    "view, flat": lambda x: aten.view(x, [x.shape[0], -1]),
    "view, unfolded": lambda x: aten.view(aten.view(x, [-1, 6]), [x.shape[0], 4, 2, 3]),
    "view, the batch told by -1": lambda x: aten.view(x, [-1, 24]),
    "view, one dimension": lambda x: aten.view(x, [x.shape[0] * 24]),
    "view, a 1 more": lambda x: aten.view(x, [x.shape[0], 1, 24]),
    "view, the batch cannot be divided": lambda x: aten.view(x, [2, -1]),
    "view, out of order": lambda x: aten.view(x.transpose(1, 2), [x.shape[0], 2, 3, 4]),
    "view, the batch behind": lambda x: aten.view(x.permute(1, 2, 0).contiguous(), [24, x.shape[0]]),
    "_unsafe_view": lambda x: aten._unsafe_view(x, [x.shape[0] * 4, 6]),
    "tanh out of order": lambda x: aten.tanh(x.transpose(1, 2)),
    "neg of integers": lambda x: aten.neg(x.long()),
    "tanh of integers": lambda x: aten.tanh(x.long()),
    "tanh of half": lambda x: aten.tanh(x.half()),
    **{str(packet): packet.default for packet in POINTWISE},
}


@pytest.mark.parametrize("name", WORK)
def test_they_are_those_of_torch(x: torch.Tensor, name: str) -> None:
    expected = form(made(x, WORK[name]))
    x.fake_mode.cache_clear()
    with quick_fakes():
        assert form(made(x, WORK[name])) == expected


def test_a_view_shares_the_memory(x: torch.Tensor) -> None:
    with quick_fakes():
        view = made(x, WORK["transpose"])
    assert view.untyped_storage()._cdata == x.untyped_storage()._cdata


WRONG: dict[str, Made] = {
    "mm": lambda x: aten.mm(rows(x), torch.empty(5, 3)),
    "addmm": lambda x: aten.addmm(torch.empty(2), rows(x), torch.empty(6, 3)),
    "batch norm": lambda x: norm(x, 5),
    "layer norm": lambda x: aten.native_layer_norm(x, [5], None, None, 1e-5),
    "view": lambda x: aten.view(x, [x.shape[0], 5]),
    "permute": lambda x: aten.permute(x, [0, 0, 1]),
    "transpose": lambda x: aten.transpose(x, 0, 3),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_by_torch(x: torch.Tensor, name: str) -> None:
    said = []
    for _ in range(2):
        with pytest.raises((RuntimeError, IndexError, ValueError)) as error:
            made(x, WRONG[name])
        said.append(str(error.value))
    with quick_fakes(), pytest.raises((RuntimeError, IndexError, ValueError)) as error:
        made(x, WRONG[name])
    assert said == [str(error.value)] * 2


def test_the_table_is_torchs_own_again(x: torch.Tensor) -> None:
    before = dict(private.get_fast_op_impls())
    with quick_fakes():
        assert private.get_fast_op_impls().keys() >= QUICK.keys()
        with quick_fakes():
            made(x, WORK["mm"])
        assert private.get_fast_op_impls().keys() >= QUICK.keys()
    assert private.get_fast_op_impls() == before


def notes(x: torch.Tensor) -> list[Any]:
    """What a tracer writes beside the values of a graph."""
    graph = private.make_fx(lambda x: torch.relu(x) + 1)(x).graph
    return [node.meta["tensor_meta"] for node in graph.nodes if node.op != "output"]


def test_a_tracer_does_not_ask_for_the_order_of_memory(x: torch.Tensor) -> None:
    plain = notes(x)
    assert [note.memory_format for note in plain] == [torch.contiguous_format] * 3
    with quick_fakes():
        assert notes(x) == plain  # somebody else's trace
        with alone():
            ours = notes(x)
    assert ours == [note._replace(memory_format=None) for note in plain]
    assert notes(x) == plain


def test_they_are_asked(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(QUICK, aten.mm.default, lambda *given: asked.append(given))
    with quick_fakes():
        assert made(x, WORK["mm"]).shape[1] == 3
    assert len(asked) == 1
