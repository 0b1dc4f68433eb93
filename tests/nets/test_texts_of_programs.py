"""Programs of compiled nets as text: they parse back, run to the same bits, and are tuned alike."""

import functools
from collections.abc import Callable

import kept
import pytest
import torch
from program_texts import again, assert_programs_parse_back
from zoo import ZOO
from zoo_cases import BATCH

import altprop
from altprop.ir.program import Program
from altprop.ir.program_laws import verify_program
from altprop.passes.cleanup import Cleanup

pytestmark = pytest.mark.third

NAMES = ("mlp_tanh", "conv_bn_dropout", "class_weights")


@functools.cache
def net_of(name: str) -> altprop.LocalNet:
    case = ZOO[name]
    inputs = case.inputs(BATCH)
    assert isinstance(inputs, tuple)
    sgd = altprop.optim.SGD(lr=0.1, momentum=0.9)
    return kept.compile(case.model(), "reclra", example_inputs=inputs, loss=case.loss, optimizer=sgd)


def numbers(program: Program) -> list[object]:
    """Something of the right form for each input: a batch of 5, classes below 3, a rate."""
    made: list[object] = []
    for node in program.placeholders.values():
        value = node.meta.get("val")
        if value is None:
            made.append(-0.1)
            continue
        sizes = [int(size) if isinstance(size, int) else 5 for size in value.shape]
        generator = torch.Generator().manual_seed(len(made))
        drawn = torch.rand(sizes, generator=generator, dtype=torch.float64) * 2
        made.append(drawn.to(value.dtype))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_programs_parse_back(name: str) -> None:
    assert_programs_parse_back(net_of(name))


@pytest.mark.parametrize("name", ["mlp_tanh", "conv_bn_dropout"])
def test_a_parsed_program_runs_to_the_same_bits(name: str) -> None:
    program = net_of(name).graph.programs["step"]
    runs = []
    for one in (program, again(program)):
        given = numbers(one)
        torch.manual_seed(0)
        with torch.no_grad():
            (loss,) = one.graph(*given)
        assert loss.isfinite()
        runs.append([loss, *given])  # the step writes into what it is given
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True) if isinstance(a, torch.Tensor))


@pytest.mark.parametrize("name", NAMES)
def test_a_parsed_program_is_tuned_alike(name: str) -> None:
    raw = net_of(name).history["add_optimizer"]
    read = raw.replace(programs={key: again(program) for key, program in raw.programs.items()})
    clean = Cleanup(channels_last=True)
    expected, found = clean(raw).graph.programs, clean(read).graph.programs
    assert {key: str(program) for key, program in found.items()} == {
        key: str(program) for key, program in expected.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("stage", "level"), [("flatten", "flat"), ("add_optimizer", "optimized"), ("cleanup", "tuned")]
)
def test_laws_hold_behind_every_stage(name: str, stage: str, level: str) -> None:
    """Among them that the form of every value is that of a run."""
    programs = net_of(name).history[stage].programs
    for key, program in programs.items():
        has_it = key == "step" or level != "optimized"  # the others are flat still
        verify_program(program, level if has_it else "flat", stage, by_run=True)


def test_text_of_an_update(golden: Callable[[str, str], None]) -> None:
    golden("program-mlp-reclra-update", str(net_of("mlp_tanh").graph.programs["update"]))
