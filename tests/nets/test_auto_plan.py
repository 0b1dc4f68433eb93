"""`plan="auto"`: wirings weighed for a number of devices; the rec-LRA paper's nine layers as a golden text."""

import re
from collections import OrderedDict
from collections.abc import Callable

import kept
import pytest
import tiny
import torch
from torch import nn

import altprop
from altprop import CompileError, Machine, PlanError
from altprop.compiler.schedule.wirings import WiringSearch, search_wirings
from altprop.rules.plans import Network
from altprop.rules.registry import get

WIDE, NARROW, CLASSES = 96, 8, 200


def nine_layers() -> nn.Sequential:
    """Nine layers with bottlenecks at 2, 5 and 8, and an output of many classes."""
    widths = [64, *(NARROW if layer in (2, 5, 8) else WIDE for layer in range(1, 9)), CLASSES]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in range(1, 10):
        layers[f"fc{layer}"] = nn.Linear(widths[layer - 1], widths[layer])
        layers[f"act{layer}"] = nn.Tanh()
    del layers["act9"]
    return nn.Sequential(layers)


def compiled(devices: int) -> altprop.LocalNet:
    return kept.compile(
        nine_layers(),
        rule="reclra",
        plan="auto",
        devices=devices,
        example_inputs=(torch.zeros(256, 64),),
        optimizer=altprop.optim.SGD(lr=0.01),
    )


def test_the_papers_example(golden: Callable[[str, str], None]) -> None:
    """Five devices: three make the targets of 8, 5 and 2, then five those of the rest."""
    net = compiled(5)
    search = net.graph.weighed
    assert search.best.waves == (("fc8", "fc5", "fc2"), ("fc7", "fc6", "fc4", "fc3", "fc1"))
    golden("auto_plan_nine_layers", f"{search}\n\n{net.plan}")


def test_the_papers_example_trains_on_five_devices() -> None:
    net = compiled(5)
    schedule = net.schedule(batch=64)
    assert len(schedule.programs.programs) == 5
    runtime = schedule.runtime()
    inputs, target = torch.randn(64, 64), torch.randint(0, CLASSES, (64,))
    losses = [float(runtime.step(inputs, target)) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_more_devices_are_never_slower() -> None:
    network_of = compiled(1).graph
    network = Network.of(network_of.regions)
    times = [
        search_wirings(
            network_of.captured, network, lambda region: get("reclra"), devices=count, batch=256
        ).best.seconds
        for count in (1, 2, 4, 8)
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0]


def test_memory_limits_the_choice() -> None:
    graph = compiled(1).graph
    network = Network.of(graph.regions)

    def search(memory: int) -> WiringSearch:
        return search_wirings(
            graph.captured,
            network,
            lambda region: get("reclra"),
            devices=2,
            batch=256,
            machine=Machine(memory=memory),
        )

    free = search(0)
    tight = search(free.best.memory)
    passed_over = {one.text for one in tight.found if "the limit is" in one.problem}
    assert passed_over == {one.text for one in free.found if one.memory > free.best.memory}
    assert passed_over
    with pytest.raises(
        PlanError, match=r'plan="auto": no wiring fits: .* bytes of feedback on one device, the limit is 1'
    ):
        search(1)


def test_rules_along_edges_keep_their_chain() -> None:
    net = kept.compile(tiny.mlp(3), rule="fa", plan="auto", devices=3, example_inputs=(torch.zeros(3, 7),))
    assert net.graph.weighed.best.text == "chain"
    assert 'so it cannot follow the plan "direct"' in str(net.graph.weighed)


@pytest.mark.parametrize("devices", [0, -1, True, 1.5, []])
def test_bad_devices_are_refused(devices: object) -> None:
    with pytest.raises(CompileError, match=re.escape(f"devices={devices!r}: give one device's name, a number of")):
        altprop.compile(tiny.mlp(1), devices=devices)
