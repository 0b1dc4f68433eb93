"""The passes on flat programs: fewer operators, the same bits."""

import functools
from typing import Any

import kept
import pytest
import torch
from torch import fx
from zoo import ZOO

import altprop
from altprop.ir.aliases import aliases
from altprop.ir.operators import written
from altprop.ir.program import Program, Slot
from altprop.passes.cleanup import Cleanup
from altprop.passes.tune.kernels import choose_kernels, onednn_pays
from altprop.passes.tune.recompute import CHEAP

pytestmark = pytest.mark.third

aten = torch.ops.aten
CASES = ("mlp_tanh", "mlp_gelu", "conv_bn_dropout", "residual", "branches", "encoder_layer", "tied_embedding")


@functools.cache
def compile_case(name: str, rule: str, **options: Any) -> altprop.LocalNet:
    """Compilations are kept: a test must not train them."""
    case = ZOO[name]
    inputs = case.inputs(4)
    assert isinstance(inputs, tuple)
    options.setdefault("optimizer", altprop.optim.SGD(lr=0.1, momentum=0.9))
    model = case.model()
    if options.pop("single", False):
        model, inputs = model.float(), tuple(x.float() if x.is_floating_point() else x for x in inputs)
    return kept.compile(model, rule, example_inputs=inputs, loss=case.loss, **options)


def operators(program: Program) -> list[fx.Node]:
    return [node for node in program.graph.graph.nodes if node.op == "call_function"]


def targets(program: Program, *words: str) -> list[fx.Node]:
    return [node for node in operators(program) if any(word in str(node.target) for word in words)]


def value_of(slot: Slot, net: altprop.LocalNet, name: str) -> Any:
    """Something to put into a slot: what the net holds, or numbers of the right form."""
    case = ZOO[name]
    if slot.kind == "parameter":
        return net.model.get_parameter(slot.name).detach().clone()
    if slot.kind == "buffer":
        return net.model.get_buffer(slot.name).clone()
    if slot.kind == "feedback":
        return net.feedback[slot.name].detach().clone()
    if slot.kind == "state":
        return 0.1 + net.state[slot.name].clone()
    if slot.kind == "scalar":
        return -0.1
    if slot.kind == "constant":
        return net.graph.captured.constants[slot.name].clone()
    dtype = next(net.model.parameters()).dtype
    given = {"target": case.target(4), "input": case.inputs(4)[0]}[slot.kind]  # type: ignore[index]
    assert isinstance(given, torch.Tensor)
    return given.to(dtype) if given.is_floating_point() else given.clone()


def run(program: Program, net: altprop.LocalNet, name: str) -> dict[str, torch.Tensor]:
    """Everything that a program returns, and all that it may write into."""
    given = {slot: value_of(slot, net, name) for slot in program.inputs}
    torch.manual_seed(0)
    with torch.no_grad():
        made = program.graph(*(given[slot] for slot in program.inputs))
    found = {f"{slot.kind} {slot.name}": value for slot, value in zip(program.outputs, made, strict=True)}
    kept = {slot: value for slot, value in given.items() if slot.kind in ("parameter", "buffer", "feedback", "state")}
    return found | {f"{slot.kind} {slot.name}": value for slot, value in kept.items()}


def assert_same_bits(net: altprop.LocalNet, name: str) -> None:
    raw = net.history["add_optimizer"]
    for reuse in (False, True):
        clean = Cleanup(fuse=False, reuse=reuse, kernels=False, join=False)(raw).graph
        for key in ("backward", "step"):
            before, after = run(raw.programs[key], net, name), run(clean.programs[key], net, name)
            assert before
            for slot, value in after.items():
                assert torch.equal(value, before[slot]), (key, slot, reuse)
            assert len(operators(clean.programs[key])) < len(operators(raw.programs[key]))


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
@pytest.mark.parametrize("name", CASES)
def test_cleaning_changes_no_bit(name: str, rule: str) -> None:
    assert_same_bits(compile_case(name, rule), name)


@pytest.mark.parametrize("name", ["mlp_gelu", "conv_bn_dropout"])
def test_cleaning_changes_no_bit_of_single_precision(name: str) -> None:
    assert_same_bits(compile_case(name, "reclra", single=True), name)


@pytest.mark.parametrize("name", ["mlp_tanh", "residual"])
def test_merging_projections_changes_no_bit(name: str) -> None:
    """As the docstring of `cleanup` says; a BLAS may choose another kernel for the wider product."""
    assert_same_bits(compile_case(name, "dfa"), name)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
@pytest.mark.parametrize("name", ["conv_bn_dropout", "residual", "encoder_layer", "attention"])
def test_all_of_cleaning_changes_rounding_at_most(name: str, rule: str) -> None:
    net = compile_case(name, rule)
    before = run(net.history["add_optimizer"].programs["step"], net, name)
    after = run(net.graph.programs["step"], net, name)
    for slot, value in after.items():
        assert torch.allclose(value, before[slot], rtol=0, atol=1e-12), slot


# What is gone


def computes_input_gradient(node: fx.Node) -> bool:
    mask = node.args[-1]
    assert isinstance(mask, (list, tuple))
    return bool(mask[0])


@pytest.mark.parametrize("key", ["step", "backward", "update"])
def test_direct_rules_compute_no_input_gradient_of_a_convolution(key: str) -> None:
    for rule, count in (("dfa", 0), ("reclra", 0), ("bp", 1)):
        program = compile_case("conv_bn_dropout", rule).graph.programs[key]
        products = targets(program, "convolution_backward")
        assert len(products) == 2
        assert sum(computes_input_gradient(node) for node in products) == count, rule


def test_direct_projections_are_one_product() -> None:
    net = compile_case("residual", "dfa")
    assert len(net.feedback) == 4
    for key in ("step", "backward", "update"):
        program = net.graph.programs[key]
        feedback = [n for n in program.graph.graph.nodes if n.op == "placeholder" and n.name.startswith("feedback")]
        assert len(feedback) == 4
        (joined,) = {user for node in feedback for user in node.users}
        assert joined.target is aten.cat.default
        (product,) = joined.users
        assert product.target is aten.mm.default


def test_wide_messages_are_made_where_they_are_used() -> None:
    """On a processor; they would leave its cache, and come back with gaps between rows."""
    model = torch.nn.Sequential(*(torch.nn.Linear(40, 40) for _ in range(3)), torch.nn.Linear(40, 3))
    optimizer = altprop.optim.SGD(lr=0.1)
    net = kept.compile(model, rule="dfa", example_inputs=(torch.randn(4, 40),), optimizer=optimizer)
    step = net.graph.programs["step"]
    assert not targets(step, "aten.cat", "aten.split")
    assert sum(str(arg).startswith("feedback") for node in targets(step, "aten.mm.") for arg in node.args) == 3


def test_a_bias_runs_into_its_buffer_in_one_operator() -> None:
    net = compile_case("mlp_tanh", "dfa")
    fused = targets(net.graph.programs["step"], "addmv_.")
    assert len(fused) == 3
    assert {node.kwargs["beta"] for node in fused} == {0.9}
    assert len(targets(net.graph.programs["step"], "new_ones")) == 1
    assert not targets(net.graph.programs["step"], "aten.sum")


def test_a_momentum_update_is_one_operator() -> None:
    net = compile_case("mlp_tanh", "dfa")
    step = Cleanup(kernels=False)(net.history["add_optimizer"]).graph.programs["step"]
    fused = targets(step, "addmm_.")
    assert len(fused) == 3
    assert {node.kwargs["beta"] for node in fused} == {0.9}
    buffers = {node.args[0] for node in fused}
    assert all(isinstance(node, fx.Node) and node.op == "placeholder" for node in buffers)
    plain = Cleanup(fuse=False, kernels=False)(net.history["add_optimizer"]).graph.programs["step"]
    assert not targets(plain, "addmm_.")


def test_unfused_optimizers_stay_as_torch_writes_them() -> None:
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9, fused=False)
    step = compile_case.__wrapped__("mlp_tanh", "dfa", optimizer=optimizer).graph.programs["step"]
    assert not targets(step, "addmm_.")
    assert len(targets(step, "mul_.")) >= 6


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
def test_no_operator_is_idle(name: str, rule: str) -> None:
    net = compile_case(name, rule)
    for program in net.graph.programs.values():
        assert not targets(program, "aten.detach", "aten.alias")
        for node in operators(program):
            assert node.users or written(node), f"{node} does nothing"
        twins: dict[Any, fx.Node] = {}
        for node in operators(program):
            drawn = any(word in str(node.target) for word in ("dropout", "bernoulli"))
            if not written(node) and not drawn and node.target not in CHEAP:
                key = (node.target, str(node.args), str(node.kwargs))
                assert key not in twins or any(written(u) for u in node.users), f"{node} repeats {twins[key]}"
                twins[key] = node


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
def test_parameters_are_written_behind_their_last_reader(name: str, rule: str) -> None:
    step = compile_case(name, rule).graph.programs["step"]
    order = {node: index for index, node in enumerate(step.graph.graph.nodes)}
    count = 0
    for write in operators(step):
        for target in written(write):
            if target.op != "placeholder":
                continue
            count += 1
            readers = {user for member in aliases(target) for user in member.users if not written(user)}
            late = [
                reader for reader in readers if order[reader] > order[write] and reader.target is not aten.add.Tensor
            ]
            assert not late, f"{late} read {target} after {write} wrote it"
    assert count >= 4


def test_inputs_that_nothing_reads_are_left_out() -> None:
    net = compile_case("mlp_tanh", "dfa")
    for program in net.graph.programs.values():
        placeholders = [n for n in program.graph.graph.nodes if n.op == "placeholder"]
        assert len(placeholders) == len(program.inputs)
        assert all(node.users for node in placeholders)
    update = net.graph.programs["update"]
    assert not [s for s in update.inputs if s.kind == "parameter"], "DFA needs no weight in its update"


def test_cheap_activities_are_made_again_and_not_kept() -> None:
    """rec-LRA reads both a pre-activation and its relu; it holds no more than a rule that reads the relu alone."""
    held = {}
    for rule in ("dfa", "reclra"):
        net = compile_case("conv_bn_dropout", rule)
        held[rule] = net.memory(ZOO["conv_bn_dropout"].inputs(4), ZOO["conv_bn_dropout"].target(4)).saved
        made = len(targets(net.graph.programs["backward"], "relu"))
        before = len(targets(net.history["add_optimizer"].programs["backward"], "relu"))
        assert made == before + (2 if rule == "reclra" else 0)
    assert held["reclra"] == held["dfa"]
    kept = [slot for slot in net.graph.programs["forward"].outputs if slot.kind == "residual"]
    assert not any("relu" in str(node.target) for node in _returned(net.graph.programs["forward"], kept))


def _returned(program: Program, slots: list[Slot]) -> list[fx.Node]:
    (returned,) = next(node for node in program.graph.graph.nodes if node.op == "output").args
    return [node for slot, node in zip(program.outputs, returned, strict=True) if slot in slots]


@pytest.mark.skipif(not onednn_pays(), reason="oneDNN's products are chosen only where the BLAS is the slower one")
def test_a_compiler_gets_chosen_kernels_as_operators() -> None:
    graph = fx.Graph()
    wide = torch.empty(64, 256)
    left, right = graph.placeholder("left"), graph.placeholder("right")
    made = graph.call_function(aten.mm.default, (left, right))
    graph.output(made)
    left.meta["val"], right.meta["val"], made.meta["val"] = wide, torch.empty(256, 64), torch.empty(64, 64)
    assert choose_kernels(graph, opaque=True) == 1
    module = fx.GraphModule({}, graph)
    one, other = torch.randn(64, 256), torch.randn(256, 64)
    assert torch.allclose(module(one, other), one @ other, atol=1e-4)
    assert made.target is torch.ops.altprop.product.default
