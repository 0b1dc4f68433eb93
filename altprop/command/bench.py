"""`altprop bench`: times a step of a model beside plain autograd, or measures the machine for the cost model."""

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn import functional

import altprop
from altprop.calibrate import calibrate
from altprop.command import options
from altprop.command.example import compile_example, make_example
from altprop.command.screen import CommandError, note, results


def bench(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help=options.MODEL_HELP, show_default=False)] = None,
    rule: options.Rule = None,
    plan: options.Plan = None,
    measure: Annotated[
        Path | None,
        typer.Option("--calibrate", metavar="FILE", help="Measure this machine for 'altprop schedule --machine FILE'."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each times both candidates.")] = 10,
    input_shape: options.InputShape = None,
    data: options.Data = None,
    batch: options.Batch = 64,
    hidden: options.Hidden = None,
    activation: options.Activation = None,
    model_option: options.ModelOption = None,
    seed: options.Seed = None,
    debug: options.Debug = False,
) -> None:
    """Time a training step of a classifier beside plain autograd.

    With --calibrate it measures the machine, for simulations of several devices.

    Examples: altprop bench resnet20 --rule dfa; altprop bench --calibrate machine.json
    """
    if model is None and measure is None:
        raise CommandError("say which MODEL to time, or give --calibrate FILE to measure the machine")
    if measure is not None:
        machine = calibrate()
        machine.save(measure)
        results.print(f"{machine}")
        note(f"written to {measure}")
    if model is None:
        return
    example = make_example(
        model,
        shapes=input_shape,
        data=data,
        batch=batch,
        hidden=hidden,
        activation=activation,
        options=model_option,
        seed=seed,
    )
    plain, ours = _steps(example, rule, plan, seed)
    pairs = [(_seconds(plain), _seconds(ours)) for _ in range(rounds + 2)][2:]
    ratio = statistics.median(own / other for other, own in pairs)
    results.print(
        f"a step of {model}, batch {batch}: {statistics.median(own for _, own in pairs) * 1e3:.2f} ms, "
        f"{ratio:.2f} times plain autograd's (median of {rounds} rounds in turns)"
    )


def _steps(example: Any, rule: str | None, plan: str | None, seed: int | None) -> tuple[Callable[[], Any], ...]:
    """A step of plain autograd on a copy of the model, and one of ours."""
    plain = copy.deepcopy(example.model).train()
    inputs = tuple(torch.randn_like(one) if one.is_floating_point() else one for one in example.inputs)
    target = torch.zeros(inputs[0].shape[0], dtype=torch.int64)
    moves = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        moves.zero_grad()
        functional.cross_entropy(plain(*inputs), target).backward()
        moves.step()

    optimizer = altprop.optim.SGD(lr=0.01, momentum=0.9)
    net = compile_example(example, rule=rule, plan=plan, regions=None, seed=seed, optimizer=optimizer)
    return step, lambda: net.step(inputs, target)


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
