"""Each pass: what it promises, what the verifier catches, and that numbers stay the same bit by bit."""

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from torch import fx, nn
from zoo import ZOO
from zoo_cases import Case
from zoo_small import Attention, SharedTwice

import altprop
from altprop.compiler.capture.capture import capture
from altprop.compiler.pass_order import ORDER
from altprop.ir.graph import LEVELS, ErrorGraph
from altprop.ir.program import Program
from altprop.passes.base import Pass, name_of
from altprop.passes.cleanup import Cleanup
from altprop.passes.connect_skip_errors import ConnectSkipErrors
from altprop.passes.cut_regions import CutRegions
from altprop.passes.derive_updates import DeriveUpdates
from altprop.passes.insert_error_neurons import InsertErrorNeurons
from altprop.passes.insert_feedback import InsertFeedback
from altprop.passes.linearize_regions import LinearizeRegions

pytestmark = pytest.mark.third

aten = torch.ops.aten
STAGES = {
    "capture": "captured",
    "cut_regions": "cut",
    "insert_error_neurons": "neurons",
    "connect_skip_errors": "wired",
    "linearize_regions": "linearized",
    "insert_feedback": "feedback",
    "derive_updates": "derived",
    "flatten": "derived",
    "add_optimizer": "derived",
    "cleanup": "derived",
}


def compile_case(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    case = ZOO[name]
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.1, momentum=0.9))
    return kept.compile(case.model(), rule, example_inputs=inputs, loss=case.loss, **options)


@pytest.fixture(scope="module")
def small() -> altprop.LocalNet:
    """An MLP under DFA; tests read it and do not train it."""
    return compile_case("mlp_tanh", "dfa")


def operators(program: Program) -> list[fx.Node]:
    return [node for node in program.graph.graph.nodes if node.op == "call_function"]


def named(program: Program, *words: str) -> list[fx.Node]:
    return [node for node in operators(program) if any(word in str(node.target) for word in words)]


# Every stage


def test_history_keeps_every_stage(small: altprop.LocalNet) -> None:
    assert {name: graph.level for name, graph in small.history.items()} == STAGES
    assert list(small.history) == list(STAGES) == ["capture", *map(name_of, ORDER)]
    levels = [LEVELS.index(one.ensures) for one in ORDER]
    assert levels == sorted(levels), "a pass ensures less than the one before it"
    assert small.history["cleanup"] is small.graph
    compiled = small.compilations.present().compiled
    assert compiled.graph_at("wired") is small.history["connect_skip_errors"]
    assert compiled.graph_at("derived") is small.history["derive_updates"]
    assert [set(graph.programs) for name, graph in small.history.items() if name in ("flatten", "add_optimizer")] == [
        {"forward", "update", "backward"},
        {"forward", "update", "backward", "step"},
    ]
    assert all(str(graph).startswith("altprop graph 1, level ") for graph in small.history.values())
    assert set(small.seconds) >= set(STAGES) - {"capture"}  # kept from another net


def passes_of(net: altprop.LocalNet) -> list[tuple[str, Pass]]:
    return [
        ("capture", CutRegions("layer")),
        ("cut_regions", InsertErrorNeurons(net.plan)),
        ("insert_error_neurons", ConnectSkipErrors()),
        ("connect_skip_errors", LinearizeRegions()),
        ("linearize_regions", InsertFeedback()),
        ("insert_feedback", DeriveUpdates()),
        ("add_optimizer", Cleanup()),
    ]


def test_passes_make_new_graphs_and_say_how_many_things_changed(
    small: altprop.LocalNet, caplog: pytest.LogCaptureFixture
) -> None:
    for before, one in passes_of(small):
        graph = small.history[before]
        text, programs = str(graph), {name: str(p) for name, p in graph.programs.items()}
        caplog.clear()
        with caplog.at_level(logging.INFO, "altprop"):
            result = one(graph)
        (record,) = caplog.records
        assert result.modified
        assert result.graph is not graph
        assert str(graph) == text, f"{one.name} altered its input"
        assert {name: str(p) for name, p in graph.programs.items()} == programs
        assert str(result.graph) == str(small.history[one.name]), f"{one.name} depends on chance"
        count = record.getMessage().removeprefix(f"{one.name}: ").split()[0]
        assert int(count) > 0


def test_passes_print_their_options() -> None:
    first = "fuse=True, reuse=True, kernels=False, opaque=False, join=True"
    options = f"{first}, channels_last=False, laid_out=False, least=False"
    assert str(Cleanup(kernels=False)) == f"cleanup({options})"
    assert str(CutRegions(("a*", "b"))) == "cut_regions(regions=('a*', 'b'))"


def test_nothing_is_left_to_clean(small: altprop.LocalNet, caplog: pytest.LogCaptureFixture) -> None:
    programs = dict(small.graph.programs)
    with caplog.at_level(logging.INFO, "altprop"):
        again = dict(Cleanup()(small.graph).graph.programs)
    assert {name: str(p) for name, p in again.items()} == {name: str(p) for name, p in programs.items()}
    assert [record.getMessage() for record in caplog.records][1:] == [
        f"cleanup: 0 simplifications in the program {name}" for name in programs
    ]


def test_programs_are_built_when_they_are_first_asked_for() -> None:
    net = compile_case("mlp_tanh", "dfa")
    assert set(net.graph.programs) == {"forward", "update", "backward", "step"}
    assert not any(net.graph.programs.has_made(name) for name in net.graph.programs)
    net.step(*ZOO["mlp_tanh"].inputs(4), ZOO["mlp_tanh"].target(4))
    assert [name for name in net.graph.programs if net.graph.programs.has_made(name)] == ["step"]
    assert "program step" in net.seconds


# The verifier


@dataclasses.dataclass(frozen=True)
class Broken(Pass):
    """A pass that does something wrong."""

    damage: Callable[[ErrorGraph], ErrorGraph] = lambda graph: graph
    level: str = "cut"

    @property
    def name(self) -> str:
        return "broken"

    def __call__(self, graph: ErrorGraph) -> Any:
        object.__setattr__(self, "requires", "captured")
        object.__setattr__(self, "ensures", self.level)
        return super().__call__(graph)

    def run(self, graph: ErrorGraph) -> tuple[ErrorGraph, int, str]:
        return self.damage(graph), 1, "things broken"


def drop_region(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(regions=(graph.regions[0], *graph.regions[2:]))


def swap_regions(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(regions=(graph.regions[1], graph.regions[0], *graph.regions[2:]))


def double_region(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(regions=(*graph.regions, graph.regions[-1]))


def drop_parameter(graph: ErrorGraph) -> ErrorGraph:
    first = dataclasses.replace(graph.regions[0], parameters=("0.bias",))
    return graph.replace(regions=(first, *graph.regions[1:]))


def unplan(graph: ErrorGraph) -> ErrorGraph:
    assert graph.plan is not None
    return graph.replace(plan=dataclasses.replace(graph.plan, regions=graph.plan.regions[1:]))


def drop_neurons(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(neurons={k: v for k, v in graph.neurons.items() if k != "2"})


def reverse_connections(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(connections=graph.connections[::-1])


def rename_feedback(graph: ErrorGraph) -> ErrorGraph:
    (name, one), *rest = graph.feedback.items()
    return graph.replace(feedback={name: dataclasses.replace(one, connection="9->0"), **dict(rest)})


def drop_update(graph: ErrorGraph) -> ErrorGraph:
    return graph.replace(updates={k: v for k, v in graph.updates.items() if k != "0"})


DAMAGE: dict[str, tuple[str, str, Callable[[ErrorGraph], ErrorGraph], str]] = {
    "region removed": ("cut_regions", "cut", drop_region, r"region 4: reads tanh_1 before it is made"),
    "regions swapped": ("cut_regions", "cut", swap_regions, "region 2: reads tanh before it is made"),
    "region twice": ("cut_regions", "cut", double_region, "region 4: the name stands twice"),
    "parameter lost": ("cut_regions", "cut", drop_parameter, r"0\.weight"),
    "plan": ("insert_error_neurons", "neurons", unplan, 'region "0" is missing'),
    "neurons": ("connect_skip_errors", "wired", drop_neurons, "2 has no error neurons"),
    "order": ("connect_skip_errors", "wired", reverse_connections, "2->0: is sent before the error of 2 is complete"),
    "feedback": ("insert_feedback", "feedback", rename_feedback, "there is no connection 9->0"),
    "update": ("derive_updates", "derived", drop_update, r"parameter 0\.weight: has no update"),
}


@pytest.fixture(scope="module")
def chained() -> altprop.LocalNet:
    """An MLP whose errors go from layer to layer."""
    return compile_case("mlp_tanh", "reclra", plan="chain")


@pytest.mark.parametrize("name", DAMAGE)
def test_a_broken_pass_is_caught(name: str, chained: altprop.LocalNet) -> None:
    stage, level, damage, message = DAMAGE[name]
    graph = chained.history[stage]
    assert Broken(level=level)(graph).modified, "the verifier complains about nothing"
    with pytest.raises(altprop.VerifyError, match=message) as raised:
        Broken(damage=damage, level=level)(graph)
    text = str(raised.value)
    assert text.startswith("after broken: the graph breaks ")
    assert "altprop graph 1, level" in text, "the graph is printed with the message"
    assert "\n  ^ " in text


def test_a_value_without_a_shape_is_caught() -> None:
    net = compile_case("mlp_relu_no_bias", "dfa")
    graph = net.history["cut_regions"]
    del graph.captured.node("relu").meta["val"]
    with pytest.raises(altprop.VerifyError, match=r"relu: has no fake value"):
        Broken()(graph)


def test_all_violations_are_collected(chained: altprop.LocalNet) -> None:
    def damage(graph: ErrorGraph) -> ErrorGraph:
        return drop_update(rename_feedback(graph))

    with pytest.raises(altprop.VerifyError, match=r"breaks 3 law\(s\)"):
        Broken(damage=damage, level="derived")(chained.history["derive_updates"])


def test_a_pass_that_comes_too_early_is_refused(chained: altprop.LocalNet) -> None:
    message = 'before derive_updates: the graph is at level "cut", not yet at "feedback"'
    with pytest.raises(altprop.VerifyError, match=message):
        DeriveUpdates()(chained.history["cut_regions"])


# Cutting


def regions_of(case: Case, regions: str | tuple[str, ...] = "layer") -> tuple[Any, ...]:
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    graph = ErrorGraph(capture(case.model(), inputs))
    return CutRegions(regions)(graph).graph.regions


def test_a_region_is_one_layer_and_what_follows_it() -> None:
    regions = {region.name: region for region in regions_of(ZOO["conv_bn_dropout"])}
    assert list(regions) == ["conv1", "conv2", "fc"]
    assert regions["conv1"].parameters == ("conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias")
    assert regions["conv1"].shape == ("N", 5, 8, 8)
    assert regions["conv2"].shape == ("N", 4, 6, 6), "error neurons sit at the activity, before pooling"
    assert [len(r.phi) for r in regions.values()] == [1, 1, 0]
    assert regions["fc"].is_output
    assert regions["conv2"].tail


def test_projections_that_meet_are_one_region() -> None:
    case = Case("attention", Attention, ZOO["attention"].inputs, ZOO["attention"].target)
    for granularity, whole in (("layer", True), ("operator", False)):
        names = {region.name: region.parameters for region in regions_of(case, granularity)}
        owners = {p: name for name, parameters in names.items() for p in parameters}
        assert set(owners) == {name for name, _ in case.model().named_parameters()}
        assert (owners["one.in_proj_weight"] == owners["one.out_proj.weight"]) == whole


def test_a_second_call_is_a_region_of_its_own() -> None:
    case = Case("shared", SharedTwice, ZOO["shared_twice"].inputs, ZOO["shared_twice"].target)
    assert [r.name for r in regions_of(case)] == ["first", "shared", "shared@1", "out"]


def test_globs_cut_whole_modules() -> None:
    case = ZOO["encoder_layer"]
    (layer,) = [r for r in regions_of(case, ("layer",)) if r.name == "layer"]
    inside = {f"layer.{name}" for name, _ in case.model().get_submodule("layer").named_parameters()}
    assert set(layer.parameters) == inside


@pytest.mark.parametrize("regions", ["layer", "operator", ("layer",), ("layer.self_attn", "layer.linear*")])
def test_any_cut_is_autograd_under_bp(regions: Any) -> None:
    case = ZOO["encoder_layer"]
    model = case.model()
    reference = copy.deepcopy(model)
    (x,) = case.inputs(4)
    net = kept.compile(model, "bp", example_inputs=(x,), regions=regions)
    torch.manual_seed(0)
    case.loss_of(reference(x), case.target(4)).backward()
    torch.manual_seed(0)
    net.backward(x, case.target(4))
    for name, parameter in model.named_parameters():
        wanted = reference.get_parameter(name).grad
        assert parameter.grad is not None
        assert wanted is not None
        assert torch.allclose(parameter.grad, wanted, rtol=0, atol=1e-10), name


class Blocks(nn.Module):
    """Two blocks of the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True) for _ in range(2)))
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(x).mean(1))


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
def test_block_regions(rule: str) -> None:
    torch.manual_seed(0)
    model = Blocks().double()
    x, y = torch.randn(4, 5, 8, dtype=torch.float64), torch.randint(3, (4,))
    net = kept.compile(model, rule, example_inputs=(x,), regions="block")
    assert [r.name for r in net.graph.regions] == ["blocks.0", "blocks.1", "out"]
    net.backward(x, y)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    exact = {name for name, p in model.named_parameters() if torch.allclose(found[name], p.grad, atol=1e-10)}  # type: ignore[arg-type]
    assert exact == set(found) if rule == "bp" else {"out.weight", "out.bias"} <= exact < set(found)
