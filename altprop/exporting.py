"""From a net to what an exporter needs: the graph before it was flattened, and the present tensors."""

from typing import Any

import torch

from altprop.compiler.export.subject import Subject
from altprop.compiler.pipeline import Options
from altprop.ir.errors import ExportError
from altprop.ir.program import Slot
from altprop.ir.values import STATE_DICT, ValueName
from altprop.runtime.net import LocalNet
from altprop.runtime.variant import Variant


def subject_of(net: LocalNet, options: Options, target: Any = None, variant: Variant | None = None) -> Subject:
    """Gathers what is exported.

    Args:
        net: a compiled net.
        options: what its compilation was asked for.
        target: an example target, or None for the loss's usual form.
        variant: which of its compilations; None takes the first.

    Raises:
        CompileError: nothing is compiled yet.
        ExportError: its steps follow two programs by chance.
    """
    variant = variant or net.compilations.present()
    if variant.compiled.graph.alternation is not None:
        raise ExportError("a net whose rules take turns, as hdfa's do, has no single program: export one of its rules.")
    return Subject(
        model=net.model,
        derived=variant.compiled.graph_at("derived"),
        options=options,
        example=tuple(leaf for leaf in variant.example_inputs()),
        example_args=(variant.example.args, variant.example.kwargs),
        lookup=variant.tensor,
        key=state_dict_key,
        state={key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)},
        target=target,
        facts=variant.compiled.facts,
    )


def state_dict_key(slot: Slot) -> str:
    """Returns the key in `net.state_dict()` of a tensor that a program holds."""
    return STATE_DICT.write(ValueName.of(slot))
