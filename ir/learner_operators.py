"""Learners as operators: a module that teaches itself is one node of a graph, which nothing looks into.

A *learner* has the methods `predict`, `learn` and `target` of `altprop.nn.Learner`. A graph cannot hold it, so it holds
a number, the *handle*, in a tensor of no dimension that is a buffer of the learner's: a copy of a model has learners,
and handles, of its own, and the same program finds them.
"""

import contextlib
import contextvars
import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from altprop.ir.errors import CompileError, LearnerError
from altprop.ir.region import Region
from altprop.ir.torch_private import own_buffers

_LIVE: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()
_NUMBERS = itertools.count(1)
_LOCK = threading.Lock()

_OPEN: "contextvars.ContextVar[bool]" = contextvars.ContextVar("learners_open", default=False)

HANDLE = "handle"
"""Name of the buffer that holds a learner's number."""


@contextlib.contextmanager
def opened() -> Iterator[None]:
    """Lets graphs hold what learners predict now, operator by operator, in the place of the learner itself."""
    token = _OPEN.set(True)
    try:
        yield
    finally:
        _OPEN.reset(token)


def are_open() -> bool:
    """Whether it is so here."""
    return _OPEN.get()


def enter(learner: nn.Module) -> torch.Tensor:
    """Gives a learner a number of its own; returns the handle."""
    with _LOCK:
        number = next(_NUMBERS)
        _LIVE[number] = learner
    return torch.tensor(number, dtype=torch.int64)


def learners_of(model: nn.Module) -> dict[str, Any]:
    """Returns the learners of a model by their paths; one that stands there twice, by its first."""
    return {name: module for name, module in model.named_modules() if is_learner(module)}


def is_learner(module: nn.Module) -> bool:
    """Whether a module teaches itself."""
    handle = own_buffers(module).get(HANDLE)
    return handle is not None and handle.dim() == 0 and _LIVE.get(int(handle)) is module


@contextlib.contextmanager
def standing_in(learner: nn.Module, other: nn.Module) -> Iterator[None]:
    """Has a learner know what another one does, its handle excepted, and what it knew again at the end."""
    held, buffers = vars(learner).copy(), own_buffers(learner).copy()
    inside = {name: held[name] for name in vars(nn.Module()) if name in held}  # tensors, modules, hooks
    learner.__dict__.update({**vars(other), **inside})
    own_buffers(learner).update({name: one for name, one in own_buffers(other).items() if name != HANDLE})
    try:
        yield
    finally:
        learner.__dict__.clear()
        learner.__dict__.update(held)
        own_buffers(learner).clear()
        own_buffers(learner).update(buffers)


def put_back(learner: nn.Module, before: nn.Module) -> None:
    """Makes a learner what a copy of it was, tensors and modules in it excepted; the copy is used up."""
    shared = vars(nn.Module()).keys() - {"training"}  # tensors, modules, hooks
    learner.__dict__.update({name: value for name, value in before.__dict__.items() if name not in shared})


def _find(handle: torch.Tensor) -> Any:
    found = _LIVE.get(int(handle))
    if found is None:
        raise LearnerError(
            "a learner of this program is gone: it was taken out of the model, or the model was freed: "
            "compile the model anew."
        )
    return found


@torch.library.custom_op("altprop::predict", mutates_args=())
def predict(x: torch.Tensor, handle: torch.Tensor, shape: Sequence[int], step: float, crosses: bool) -> torch.Tensor:
    """What a learner makes of its input.

    Args:
        x: batch first.
        handle: of the learner.
        shape: of what it returns, behind the batch.
        step: how far its targets lie along the error; nothing here, but what teaches reads it off this node.
        crosses: whether it has targets for its input; likewise.
    """
    learner = _find(handle)
    with torch.no_grad():
        made = learner.predict(x)
    return _checked(made, (x.shape[0], *shape), learner, "predict").to(device=x.device, dtype=_dtype(x), copy=True)


@predict.register_fake
def _(x: Any, handle: Any, shape: Any, step: Any, crosses: Any) -> Any:
    return x.new_empty((x.shape[0], *shape), dtype=_dtype(x))


@torch.library.custom_op("altprop::crossing", mutates_args=())
def crossing(x: torch.Tensor, z: torch.Tensor, e: torch.Tensor, handle: torch.Tensor) -> torch.Tensor:
    """What an error at a learner's prediction is at its input: `x - target(x, z - e)`.

    It stands where an operator has its vector-Jacobian product, so that errors of every kind pass a learner with
    targets for its input along the forward's edges.

    Args:
        x: the input.
        z: the prediction.
        e: the error.
        handle: of the learner.
    """
    learner = _find(handle)
    with torch.no_grad():
        made = learner.target(x, z - e)
    return x - _checked(made, tuple(x.shape), learner, "target").to(device=x.device, dtype=x.dtype)


@crossing.register_fake
def _(x: Any, z: Any, e: Any, handle: Any) -> Any:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, handle, _, _, ctx.crosses = inputs
    ctx.save_for_backward(x, output, handle)


def _cross(ctx: Any, e: torch.Tensor) -> tuple[Any, ...]:
    x, z, handle = ctx.saved_tensors
    if not ctx.crosses:
        return None, None, None, None, None
    return torch.ops.altprop.crossing(x, z, e, handle), None, None, None, None


predict.register_autograd(_cross, setup_context=_keep)


def _checked(made: Any, wanted: tuple[int, ...], learner: Any, method: str) -> torch.Tensor:
    if not isinstance(made, torch.Tensor) or tuple(made.shape) != wanted:
        found = tuple(made.shape) if isinstance(made, torch.Tensor) else f"a {type(made).__name__}"
        raise LearnerError(f"{type(learner).__name__}.{method} returned {found} in the place of {wanted}.")
    return made.contiguous()


def _dtype(x: torch.Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def is_prediction(node: fx.Node) -> bool:
    """Whether a node is a learner's."""
    return node.target is torch.ops.altprop.predict.default


def refuse_learners(regions: Iterable[Region], what: str, kind: type[CompileError]) -> None:
    """Refuses what learners cannot take part in.

    Args:
        regions: of the net.
        what: what refuses them, such as "a step file".
        kind: of the error.

    Raises:
        CompileError: of that kind; names the first learner.
    """
    found = next((region for region in regions if region.learner), None)
    if found is not None:
        raise kind(
            f'region "{found.name}" is a learner ({found.learner}), which teaches itself in Python: {what} cannot hold '
            'it. Run the net with backend="eager", on one device.'
        )
