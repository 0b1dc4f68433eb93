"""One place makes a step's program: each operator has a task, and a schedule cuts what the flat program holds."""

from collections import Counter
from typing import Any

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.compiler.observe import Observer
from altprop.compiler.schedule.fix_batch import Sizes
from altprop.compiler.schedule.tagged import TaggedStep
from altprop.passes.flattening.builder import LOSS_TASK, PREAMBLE_TASK
from altprop.passes.flattening.step_program import complete, evaluated


class Normed(nn.Module):
    """Two layers and a norm with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


@pytest.fixture(scope="module")
def observer() -> Observer:
    net = kept.compile(Normed(), "kp", example_inputs=(torch.randn(4, 5),), optimizer=altprop.optim.SGD(lr=0.1))
    found: Observer = net.compilations.present().compiled.observer
    return found


def operators(graph: Any, tags: Any, kinds: str) -> Counter[str]:
    return Counter(str(n.target) for n in graph.nodes if n.op == "call_function" and tags[n][0] in kinds)


def test_every_operator_of_a_flat_program_has_a_task(observer: Observer) -> None:
    builder = complete(observer.graph, observer.loss, observer.target)
    made = [node for node in builder.graph.nodes if node.op == "call_function"]
    assert all(node in builder.tags for node in made)
    regions = {region.name for region in observer.graph.regions}
    found = {kind: {builder.tags[n][1] for n in made if builder.tags[n][0] == kind} for kind in ("F", "E", "U", "STEP")}
    # The norm counts its batches, which no parameter feeds: that is in front of all regions.
    assert found == {"F": regions | {PREAMBLE_TASK}, "E": {LOSS_TASK}, "U": regions, "STEP": regions}


def test_a_buffer_is_written_by_the_task_that_makes_its_value(observer: Observer) -> None:
    builder = complete(observer.graph, observer.loss, observer.target)
    writes = [node for node in builder.graph.nodes if node.target is torch.ops.aten.copy_.default]
    assert [builder.tags[node] for node in writes] == [("F", "first"), ("F", "first"), ("F", PREAMBLE_TASK)]


def test_a_schedule_cuts_what_the_flat_program_holds(observer: Observer) -> None:
    """But for the reduction over the batch, which belongs to the tasks of the optimizer."""
    flat = complete(observer.graph, observer.loss, observer.target)
    tagged = TaggedStep(observer.graph, observer.loss, observer.target, Sizes(observer.graph.captured, 4))
    assert not any(kind == "STEP" for kind, _ in tagged.tags.values())
    own, cut = operators(flat.graph, flat.tags, "FU"), operators(tagged.graph, tagged.tags, "FU")
    assert {name for name in own if "mm" in name} == {name for name in cut if "mm" in name}
    assert sum(n for name, n in own.items() if "mm" in name) == sum(n for name, n in cut.items() if "mm" in name)


def test_a_program_without_updates_moves_nothing(observer: Observer) -> None:
    builder = evaluated(observer.graph, observer.loss, observer.target)
    assert {kind for kind, _ in builder.tags.values()} == {"F", "E"}
    assert not any(node.target is torch.ops.aten.copy_.default for node in builder.graph.nodes)
