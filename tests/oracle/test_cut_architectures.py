"""Where regions end in real architectures: a line a region, as golden texts, and what must hold of them."""

from collections.abc import Callable

import kept
import pytest
import torch
from cutting import cut
from torch import nn
from torch.nn import functional
from zoo import ZOO
from zoo_architectures import ARCHITECTURES
from zoo_cases import BATCH

import altprop
from altprop.ir.graph import ErrorGraph
from altprop.ir.operators import short_name
from altprop.ir.region import Region

pytestmark = pytest.mark.third

CASES = {**ZOO, **ARCHITECTURES}


def lines(graph: ErrorGraph) -> str:
    """Each region with its parameters, the operator and shape of its activity, its activation, and what it reads."""
    maker = {value: region.name for region in graph.regions for value in region.outputs}
    found = []
    for region in graph.regions:
        read = ", ".join(dict.fromkeys(maker[value] for value in region.sources)) or "the input"
        made = f"{short_name(graph.captured.node(region.activity))} ({', '.join(map(str, region.shape))})"
        found += [f"{region.name} reads {read}", *(f"    {name}" for name in region.parameters), f"  z = {made}"]
        found += [f"  phi of {len(region.phi)}: {', '.join(region.phi)}"] if region.phi else []
    return "\n".join(found)


def drawn(name: str) -> ErrorGraph:
    torch.manual_seed(0)
    return cut(CASES[name].model(), CASES[name].inputs(BATCH))


@pytest.mark.parametrize("name", ["mobilenet_v2", "swin", "t5", "torchvision_vit"])
def test_regions(golden: Callable[[str, str], None], name: str) -> None:
    golden(f"regions-{name}", lines(drawn(name)))


def holder(graph: ErrorGraph, parameter: str) -> Region:
    (found,) = [region for region in graph.regions if parameter in region.parameters]
    return found


def test_a_dense_layer_makes_its_own_channels(golden: Callable[[str, str], None]) -> None:
    """What it is put beside is no part of its activity, and a norm of all of them goes with the layer that it feeds."""
    graph = drawn("densenet")
    golden("regions-densenet", lines(graph))
    own, block = holder(graph, "features.denseblock1.denselayer1.conv2.weight"), "features.denseblock1.denselayer2"
    assert own.shape == ("N", 4, 8, 8)
    assert holder(graph, f"{block}.norm1.weight") is holder(graph, f"{block}.conv1.weight")
    assert holder(graph, "features.norm0.weight") is holder(graph, "features.conv0.weight")


def test_a_long_skip_connection_is_no_part_of_what_it_is_put_beside(golden: Callable[[str, str], None]) -> None:
    graph = drawn("unet")
    golden("regions-unet", lines(graph))
    assert holder(graph, "up.weight").shape == ("N", 4, 6, 6)
    assert holder(graph, "down.1.weight") is holder(graph, "down.0.weight")


def test_a_residual_block_before_its_activations() -> None:
    """The add belongs to the block's last layer; norm and activation in front of a layer go with it."""

    class Block(nn.Module):
        """A block of the second form of residual networks (He 2016)."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.second(torch.relu(self.two(self.first(torch.relu(self.one(x))))))

    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(), Block(), nn.Flatten(), nn.Linear(256, 3))
    graph = cut(model, (torch.randn(2, 3, 8, 8),))
    assert [region.name for region in graph.regions] == ["0", "1.first", "1.second", "2.first", "2.second", "4"]
    for block in ("1", "2"):
        second = holder(graph, f"{block}.second.weight")
        assert str(graph.captured.node(second.activity).target) == "aten.add.Tensor"
        assert holder(graph, f"{block}.one.weight") is holder(graph, f"{block}.first.weight")
        assert holder(graph, f"{block}.two.weight") is holder(graph, f"{block}.first.weight")


class Towers(nn.Module):
    """Two towers whose results never meet, and a layer that returns what it makes of it before and after tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv1d(3, 4, 1), nn.Tanh(), nn.Flatten(), nn.Linear(8, 5), nn.Tanh())
        self.other = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.other(y)
        return self.one(x), features, torch.tanh(features)


TWO = (torch.randn(4, 3, 2), torch.randn(4, 7))


def test_two_towers_have_one_batch() -> None:
    graph = cut(Towers(), TWO)
    assert {region.name for region in graph.regions} == {"one.0", "one.3", "other.0", "other.2"}
    assert {region.shape[0] for region in graph.regions} == {"N"}


class Memory(nn.Module):
    """Returns what its encoder has made beside the scores that are made from it, as encoder-decoder models do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        memory = torch.tanh(self.two(torch.tanh(self.one(x))))
        return self.three(memory), memory


@pytest.mark.parametrize("rule", ["lra_e", "dfa"])
def test_an_output_that_the_loss_does_not_read_silences_no_region(rule: str) -> None:
    inputs = (torch.randn(4, 5),)
    model = Memory()
    net = kept.compile(model, rule, example_inputs=inputs, loss=lambda out, target: out[0].square().mean())
    if rule == "lra_e":
        with pytest.raises(
            altprop.CompileError, match=r'"one" hears from "two" alone, .* which the loss does not read'
        ):
            net.backward(inputs, torch.zeros(4))
        return
    net.backward(inputs, torch.zeros(4))
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


class FeaturesFirst(Memory):
    """The same, with the features in front of the scores."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, memory = super().forward(x)
        return memory, scores


def test_a_loss_of_ones_own_that_silences_a_region_is_told_once() -> None:
    """Before the backward nobody knows which outputs it reads, so it is said there."""
    x, target = torch.randn(4, 5), torch.randint(3, (4,))
    net = kept.compile(FeaturesFirst(), "lra_e", example_inputs=(x,))
    with pytest.warns(UserWarning, match=r'no gradient to some .*: region "one" hears from "two" alone'):
        functional.cross_entropy(net(x)[1], target).backward()
    assert not net.model.one.weight.grad.any()
    functional.cross_entropy(net(x)[1], target).backward()  # warnings are errors here
    features, scores = net(x)
    (functional.cross_entropy(scores, target) + features.square().mean()).backward()
    assert net.model.one.weight.grad.any()


class Aside(nn.Module):
    """Two heads; a layer stands in front of the second alone."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.aside, self.first, self.second = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.tanh(self.trunk(x))
        return self.first(z), self.second(torch.tanh(self.aside(z)))


def aside(rule: str, plan: str | None, loss: Callable[..., torch.Tensor]) -> altprop.LocalNet:
    torch.manual_seed(0)
    net = kept.compile(Aside(), rule, plan=plan, example_inputs=(torch.zeros(6, 4),), loss=loss)
    net.backward(torch.randn(6, 4), torch.zeros(6))
    return net


def of_both(out: tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return (out[0] + out[1]).square().mean()


def of_the_first(out: tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return out[0].square().mean()


@pytest.mark.parametrize(("rule", "plan"), [("modular", None), ("dfa", "blocks"), ("reclra", "edges"), ("fa", None)])
def test_all_learn_where_the_loss_reads_both_heads(rule: str, plan: str | None) -> None:
    assert all(p.grad.any() for p in aside(rule, plan, of_both).model.parameters())


def test_a_region_that_hears_from_mute_ones_alone_is_refused() -> None:
    """`modular` puts trunk and aside into one module, whose end leads to the second head alone."""
    with pytest.raises(
        altprop.CompileError, match=r'"trunk" hears from "aside" alone, and the loss reads nothing that'
    ):
        aside("modular", None, of_the_first)


@pytest.mark.parametrize("rule", ["bp", "fa", "reclra", "dfa"])
def test_what_the_loss_does_not_read_may_learn_nothing(rule: str) -> None:
    model = aside(rule, None, of_the_first).model
    silent = {name for name, p in model.named_parameters() if not p.grad.any()}
    assert silent == {f"{layer}.{part}" for layer in ("aside", "second") for part in ("weight", "bias")}


def test_the_error_of_what_the_loss_reads_is_sent() -> None:
    """What is made from other returned values stands first; the error of both is sent, at the pre-activation."""
    graph = cut(Towers(), TWO)
    last = holder(graph, "other.2.weight")
    assert [short_name(graph.captured.node(name)) for name in last.model_outputs] == ["tanh", "addmm"]
    net = kept.compile(Towers(), "dfa", example_inputs=TWO, loss=lambda out, target: (out[2] + out[0]).sum())
    net.backward(TWO, torch.zeros(4))
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.model.parameters())
    other = kept.compile(Towers(), "dfa", example_inputs=TWO, loss=lambda out, target: (out[1] + out[0]).sum())
    other.backward(TWO, torch.zeros(4))
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in other.model.parameters())
