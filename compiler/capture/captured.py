"""`Captured`: a model's forward, captured once, for any number of compilations."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from altprop.compiler.capture.capture import capture as capture_graph
from altprop.compiler.capture.quiet import quiet
from altprop.compiler.capture.wrappers import unwrap
from altprop.compiler.collector import uncollected
from altprop.compiler.quick_fakes import quick_fakes
from altprop.ir.alone import alone
from altprop.ir.autocast import casts
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CaptureError
from altprop.ir.modes import training
from altprop.ir.plain_tensors import refuse_model
from altprop.ir.structures import structure_of
from altprop.ir.timings import Timings
from altprop.ir.torch_private import pytree


@dataclasses.dataclass(frozen=True, eq=False)
class Captured:
    """A model's forward in training mode, and what must still hold for it to be the model's.

    Made by `altprop.capture`; `altprop.compile` and `altprop.examine` take it in the place of the model. It holds no
    numbers of the model's: one that learns stays the same, one that is built or frozen otherwise does not.

    Attributes:
        model: the caller's module.
        args: example positional inputs.
        kwargs: example keyword inputs.
        graph: the forward as a graph of operators.
        state: what was true of the model, by words for it; see `changes`.
        timings: where the time went.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    graph: CapturedGraph
    state: Mapping[str, str]
    timings: Timings

    def changes(self) -> list[str]:
        """Returns what of the model is otherwise now, in words that name it; empty if nothing is."""
        now = dict(state_of(self.model))
        gone = [f"{key} is gone" for key in self.state if key not in now]
        new = [f"{key} is new" for key in now if key not in self.state]
        both = [key for key in now if key in self.state and now[key] != self.state[key]]
        read = [one for one in self.graph.reads if not one.fits(one.now(self.model), one.value)]
        return [
            *gone,
            *new,
            *(f"{key} is {now[key]}, and was {self.state[key]}" for key in both),
            *(f"{one.name} is another" for one in read),
        ]

    def check(self) -> None:
        """Refuses a model that has changed.

        Raises:
            CaptureError: names what changed.
        """
        if found := self.changes():
            more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
            raise CaptureError(
                f"the model has changed since it was captured: {'; '.join(found[:3])}{more}. "
                "Capture it again: altprop.capture(model, ...)."
            )

    def serves(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether it is what a capture of `model`, as it is now, on such inputs would give."""
        batch = self.graph.batch
        same = model is self.model and _form(args, kwargs, batch) == _form(self.args, self.kwargs, batch)
        return same and self.graph.facts.hold(batch_of(args, kwargs)) and not self.changes()

    def __str__(self) -> str:
        graph = self.graph
        operators = sum(node.op == "call_function" for node in graph.graph.nodes)
        shapes = ", ".join(_shape(graph.value(name)) for name in graph.inputs)
        results = ", ".join(_shape(graph.value(name)) for name in graph.outputs if name)
        batch = f"a batch of {graph.batch}" if isinstance(graph.batch, int) else "any batch"
        batch += f" of which {graph.facts}" if graph.facts else ""
        return (
            f"captured {type(self.model).__name__}: {shapes} -> {results}, {batch}\n"
            f"  {operators} operators, {len(graph.trainable)} trainable parameters, {len(graph.buffers)} buffers, "
            f"{len(graph.buffer_updates)} of them renewed"
        )

    def __repr__(self) -> str:
        return str(self)


def capture(model: nn.Module, *inputs: Any, **kwargs: Any) -> Captured:
    """Captures the forward of a model, once for any number of compilations.

        captured = altprop.capture(model, images)
        nets = [altprop.compile(captured, rule=rule) for rule in ("bp", "dfa", "reclra")]

    The nets share the model's parameters, as nets that are compiled from the model do.

    Args:
        model: any module that `torch.export` can capture; it is not altered. It is captured in training mode.
        inputs: example inputs, tensors with a batch of two or more in front.
        kwargs: example keyword inputs.

    Raises:
        CaptureError: the model cannot be captured; the message names the module, the line and the remedy.
    """
    model = unwrap(model)
    if not isinstance(model, nn.Module):
        raise CaptureError(f"altprop.capture takes an nn.Module, not {type(model).__name__}.")
    refuse_model(model)
    timings = Timings()
    with alone(), quiet(), uncollected(), quick_fakes(), training(model), timings.stage("capture"):
        state = dict(state_of(model))
        graph = capture_graph(model, inputs, kwargs)
    return Captured(model, inputs, kwargs, graph, state, timings)


def state_of(model: nn.Module) -> Iterator[tuple[str, str]]:
    """What a capture depends on, in words: modules and their modes, and the forms of parameters and buffers."""
    with training(model):
        for name, module in model.named_modules():
            yield f'module "{name}"' if name else "the model", _of_module(module)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield f"parameter {name}", f"{'trainable' if parameter.requires_grad else 'frozen'}, {_of_tensor(parameter)}"
    for name, buffer in model.named_buffers(remove_duplicate=False):
        yield f"buffer {name}", _of_tensor(buffer)
    used = {tensor.device.type for tensor in model.parameters()} or {"cpu"}
    yield from ((f"autocast on {kind}", str(dtype)) for kind, dtype in casts().items() if kind in used)


def _of_module(module: nn.Module) -> str:
    return f"{type(module).__name__} in {'training' if module.training else 'evaluation'} mode"


def _of_tensor(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)} on {tensor.device}"


def batch_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Size of the batch, by the first tensor of a call."""
    leaves = pytree.tree_leaves((tuple(args), dict(kwargs)))
    return next((leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()), 1)


def _form(args: Sequence[Any], kwargs: Mapping[str, Any], batch: Any) -> Any:
    """What two calls must have in common to run one capture."""
    leaves = pytree.tree_leaves((tuple(args), dict(kwargs)))
    first = next((leaf.shape[0] for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()), None)

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        free = leaf.dim() > 0 and leaf.shape[0] == first and not isinstance(batch, int)
        return leaf.dtype, leaf.device, ("N", *leaf.shape[1:]) if free else tuple(leaf.shape)

    return structure_of((tuple(args), dict(kwargs))), [of(leaf) for leaf in leaves]


def _shape(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    sizes = ("N" if isinstance(size, torch.SymInt) else str(size) for size in value.shape)
    return f"{str(value.dtype).removeprefix('torch.')}({', '.join(sizes)})"
