"""The first two steps of a compilation alone: capture, and the cut into regions."""

from typing import Any

from torch import nn

from altprop.compiler.capture.capture import capture
from altprop.ir.graph import ErrorGraph
from altprop.passes.cut_regions import CutRegions


def cut(model: nn.Module, inputs: Any, regions: str | tuple[str, ...] = "layer") -> ErrorGraph:
    """The graph after the cut."""
    keywords = inputs if isinstance(inputs, dict) else {}
    captured = capture(model, () if keywords else inputs, keywords)
    return CutRegions(regions)(ErrorGraph(captured)).graph
