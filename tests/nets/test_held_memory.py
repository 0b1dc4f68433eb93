"""A step keeps its memory: the same bits, no value beside the one that takes its place, no more than a step needs."""

import copy
import itertools
import pickle
import weakref
from typing import Any

import kept
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO

import altprop
from altprop import models
from altprop.runtime import held_memory
from altprop.runtime.backends import eager

pytestmark = pytest.mark.third

aten = torch.ops.aten


def make(rule: str, **options: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    model = models.build("convnet", (1, 28, 28))
    x = torch.randn(16, 1, 28, 28)
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    return kept.compile(model, rule, example_inputs=(x,), optimizer=optimizer, seed=0, **options)


def batch(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(size, 1, 28, 28, generator=generator), torch.randint(0, 10, (size,), generator=generator)


class Convolutions(TorchDispatchMode):
    """Remembers what each convolution of the forward returned, and what of it lived when each next one ran."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []
        self.alive: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not aten.convolution.default:
            return func(*args, **(kwargs or {}))
        self.alive.append([ref() is not None for ref in self.made])
        result = func(*args, **(kwargs or {}))
        self.made.append(weakref.ref(result))
        return result


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra", "drtp"])
def test_held_memory_changes_no_bit(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = make(rule)
    losses = [held.step(*batch(size)) for size in (64, 64, 32, 64)]
    monkeypatch.setattr(eager, "with_held_memory", lambda program: program.graph.forward)
    plain = make(rule)
    for loss, size in zip(losses, (64, 64, 32, 64), strict=True):
        assert torch.equal(plain.step(*batch(size)), loss)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, held.state_dict()[key]), key


@pytest.mark.parametrize("name", ["branches", "conv_variety", "encoder_layer"])
def test_values_in_one_slot_live_one_after_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_memory, "_LEAST_BYTES", 1)
    case = ZOO[name]
    inputs = case.inputs(4)
    options: dict[str, Any] = {"example_kwargs": inputs} if isinstance(inputs, dict) else {"example_inputs": inputs}
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    net = altprop.compile(case.model(), "reclra", loss=case.loss, optimizer=optimizer, **options)
    graph = net.graph.programs["step"].graph.graph
    output = next(node for node in graph.nodes if node.op == "output")
    slots = held_memory._slots(held_memory._lives(graph, output))
    assert slots
    for one, following in itertools.chain.from_iterable(itertools.pairwise(slot.lives) for slot in slots):
        assert one.form == following.form
        assert one.end < following.start
    first = net.step(inputs, case.target(4))
    assert torch.isfinite(first)
    assert net.step(inputs, case.target(4)) != first


def test_a_value_is_freed_right_before_its_place_is_taken() -> None:
    net = make("dfa")
    with Convolutions() as watch:
        net.step(*batch())
        count = len(watch.made)
        kept = [ref() is not None for ref in watch.made]
        net.step(*batch())
    assert any(kept), "the step let all its values go"
    for index, alive in enumerate(watch.alive[count:]):
        assert not alive[index], "a value of the last step stood beside the one that takes its place"


@pytest.mark.parametrize("rule", ["reclra", "drtp"])
def test_slots_take_no_more_than_a_step_needs(rule: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    optimizer = altprop.optim.SGD(lr=0.05, momentum=0.9)
    model = models.build("resnet20", (3, 32, 32)).train()
    net = kept.compile(model, rule, example_inputs=(x,), optimizer=optimizer)
    graph = net.graph.programs["step"].graph.graph
    output = next(node for node in graph.nodes if node.op == "output")
    lives = held_memory._lives(graph, output)
    slots = held_memory._slots(lives)
    stay = held_memory._kept(slots)
    assert stay
    most = held_memory._most_alive(lives)
    assert most <= 1.3 * net.memory(x, y).live
    for place in range(len(graph.nodes)):
        there = [s for s in slots if s.lives[0].start <= place and (s.closed is None or place < s.closed)]
        there += [slot for slot in stay if slot not in there]
        assert sum(slot.last.bytes for slot in there) <= most


def test_copies_hold_memory_of_their_own() -> None:
    net = make("dfa")
    net.step(*batch())
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        expected = copy.deepcopy(net).step(*batch())
        assert torch.equal(made.step(*batch()), expected)
