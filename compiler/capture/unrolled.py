"""Says which recurrent modules are unrolled over time, and why: the time of a compile grows with their steps."""

from collections import defaultdict
from collections.abc import Iterator

from torch import fx, nn

from altprop.compiler.capture.recurrent_layers import why_unrolled
from altprop.ir.captured_graph import CapturedGraph
from altprop.passes.cut.operator_kinds import is_recurrent

_KIND = "torch.nn.modules.rnn."


def unrolled_modules(model: nn.Module, captured: CapturedGraph) -> Iterator[tuple[str, str]]:
    """Yields the name of each such module of the forward, and a sentence."""
    calls: dict[str, set[str]] = defaultdict(set)
    nodes: dict[str, list[fx.Node]] = defaultdict(list)
    for name, stack in captured.modules.items():
        for call in stack:
            if call.kind.startswith(_KIND):
                path = call.module
                calls[path].add(call.path)
                nodes[path].append(captured.node(name))
    for path, found in nodes.items():
        module = model.get_submodule(path)
        if not isinstance(module, nn.RNNBase):
            if len(calls[path]) > 1:
                yield path, _cell(type(module).__name__, len(calls[path]))
        elif not any(is_recurrent(node) for node in found):
            yield path, _layer(module)


def _cell(kind: str, count: int) -> str:
    layer = kind.removesuffix("Cell")
    return (
        f"the forward calls this {kind} {count} times, and each call is compiled by itself: nn.{layer} keeps all steps "
        "in one operator."
    )


def _layer(module: nn.RNNBase) -> str:
    why = why_unrolled(list(module.parameters())) or "its input or state is of another type than its products"
    return f"is unrolled over time, step by step, since {why}."
