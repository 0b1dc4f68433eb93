"""What no local rule can teach, said before anything is cut."""

from collections.abc import Sequence

import torch
from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.ir.operators import short_name
from altprop.ir.region import Region
from altprop.ir.walks import ancestors
from altprop.passes.cut.operator_kinds import is_comparison, is_complex, is_largest
from altprop.passes.cut.roles import Roles
from altprop.passes.cut.without_derivative import obstacle


def refuse_unlearnable(captured: CapturedGraph, roles: Roles) -> None:
    """Refuses parameters that no error would reach.

    Raises:
        CompileError: names them, and the way out.
    """
    _refuse_complex(captured, roles)
    _refuse_returned_parameters(captured, roles)
    _refuse_unfelt(captured)


def _refuse_complex(captured: CapturedGraph, roles: Roles) -> None:
    """Errors are real numbers: none could enter at a complex value."""
    found = next((node for name in roles.main if is_complex(node := captured.node(name))), None)
    if found is not None:
        where = captured.call_of(found) or "the forward"
        raise CompileError(
            f"{where} computes complex numbers ({found.name}) from trainable parameters, and errors are real: keep "
            "the real and the imaginary part as two channels, or detach this part and freeze what feeds it."
        )


def _refuse_returned_parameters(captured: CapturedGraph, roles: Roles) -> None:
    """Refuses a result made of parameters alone: no region makes it, so that its part of the loss would teach nobody.

    Raises:
        CompileError: names the parameters.
    """
    for name in captured.outputs:
        behind = roles.parameters_of.get(name, frozenset())
        if behind and name in roles.live and name not in roles.main:
            raise CompileError(
                f"the model returns a value that is made of {', '.join(sorted(behind))} alone: no region could learn "
                "from it. Return its detach(), or leave such a penalty to the optimizer's weight decay."
            )


def _refuse_unfelt(captured: CapturedGraph) -> None:
    """Refuses parameters that reach the results through whole numbers or truth values alone.

    What compares one value with a number, or with its largest unit, may turn out to be an activation.
    """
    returned = [node for node in captured.graph.nodes if node.name in captured.outputs]
    felt = ancestors(returned, lambda node: _carries_errors(node.meta.get("val")) or _may_activate(node))
    placeholders = [node for node in captured.graph.nodes if captured.is_trainable(node)]
    unfelt = [captured.parameters[n.name] for n in placeholders if n.name in captured.live and n not in felt]
    if unfelt:
        raise CompileError(
            f"{', '.join(unfelt)} reach{'es' if len(unfelt) == 1 else ''} what the model returns through comparisons "
            "or indices alone, which have no derivative, so that nothing teaches it: freeze it, requires_grad_(False)."
        )


def refuse_unmoved(captured: CapturedGraph, regions: Sequence[Region]) -> None:
    """Refuses parameters that reach their regions' pre-activations through operators without derivative alone.

    Raises:
        CompileError: names a parameter, and the operator.
    """
    found: dict[str, fx.Node | None] = {}
    for region in regions:
        nodes = [captured.node(name) for name in (*region.prologue, *region.body)]
        ends = [captured.node(name) for name in (region.preactivation, *region.ports)]
        for place, name in captured.parameters.items():
            if name in region.parameters and (name not in found or found[name] is not None):
                found[name] = obstacle(nodes, [captured.node(place)], ends)
    for name, node in found.items():
        if node is not None:
            raise CompileError(
                f"{name} is felt through {short_name(node)} alone, which has no derivative, or one of zero, so that "
                f"nothing could teach it: {STRAIGHT_THROUGH}, or freeze it, requires_grad_(False)."
            )


STRAIGHT_THROUGH = "write it as a straight-through estimate, x + (f(x) - x).detach()"


def _may_activate(node: fx.Node) -> bool:
    """Whether a comparison reads one value that is computed, and nothing else but its largest unit."""
    read = [source for source in node.all_input_nodes if not is_largest(source)]
    return is_comparison(node) and len(read) == 1 and read[0].op == "call_function"


def _carries_errors(value: object) -> bool:
    return not isinstance(value, torch.Tensor) or value.is_floating_point() or value.is_complex()
