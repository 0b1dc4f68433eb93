"""Graph modules that write no Python code until somebody runs them: most that a compilation makes are never run."""

import contextlib
from collections.abc import Iterator

import torch
from torch import fx

from altprop.ir.torch_private import LazyGraphModule, use_lazy_graph_module


@contextlib.contextmanager
def without_code() -> Iterator[None]:
    """Graph modules that are made meanwhile write their code when they are first called."""
    with use_lazy_graph_module(True):
        yield


def graph_module(root: torch.nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Returns a graph as a module, which writes its code when it is first called."""
    return LazyGraphModule(root, graph)
