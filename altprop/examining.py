"""`altprop.examine`: what would compile; and, with some data, what each wiring is worth."""

import copy
import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from altprop import optim
from altprop.api import compile
from altprop.compiler.capture.captured import Captured
from altprop.compiler.capture.wrappers import unwrap
from altprop.compiler.examine.examine import AlignedWiring, Report
from altprop.compiler.examine.examine import examine as examine_alone
from altprop.ir.errors import CompileError
from altprop.ir.loss import LossFunction
from altprop.ir.plan import WiringPlan
from altprop.rules.base import Rule
from altprop.rules.registry import recipe_of, rules_of
from altprop.runtime.net import LocalNet

WIRINGS = ("direct", "blocks", "edges")
_MOST_BATCHES = 32


def examine(
    model: nn.Module | Captured,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    regions: str | Sequence[str] = "layer",
    rule: str | Rule | Mapping[str, str | Rule] | None = None,
    plan: str | WiringPlan | None = None,
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: str | LossFunction = "cross_entropy",
    devices: int = 4,
) -> Report:
    """Says what of a model would compile, and what would not.

    Args:
        model: the model; it is not altered. Or what `altprop.capture` returned, which needs no example inputs.
        example_inputs: tuple of inputs with a batch of two or more.
        example_kwargs: keyword inputs.
        regions: as for `altprop.compile`.
        rule: as for `altprop.compile`; the report then says how its feedback starts, and whether rule and plan fit.
        plan: as for `altprop.compile`; "auto" stands for the rule's own.
        data: a few batches, pairs of inputs and target, such as a DataLoader gives. Copies of the model then learn
            them by the rule, one for each wiring, and the report has the alignment of their updates with the loss's
            gradient beside the predicted time of a step. At most 32 batches are read.
        loss: as for `altprop.compile`; of the data.
        devices: how many devices a step is predicted for.

    Raises:
        CompileError: there is data, and no batch in it, or one that is no pair.
    """
    report = examine_alone(model, example_inputs, example_kwargs, regions=regions, rule=rule, plan=plan)
    if data is None or not report.ok:
        return report
    batches = _batches(data)
    bare = model.model if isinstance(model, Captured) else unwrap(model)
    wanted = WIRINGS if plan in (None, "auto") else (plan,)
    options = {"regions": regions, "loss": loss, "example_kwargs": example_kwargs}
    aligned = [_aligned(bare, rule, one, batches, devices, options) for one in wanted]
    return dataclasses.replace(report, aligned=tuple(aligned))


def _batches(data: Iterable[tuple[Any, Any]]) -> tuple[tuple[Any, Any], ...]:
    """The first batches, which must be pairs."""
    batches = tuple(itertools.islice(data, _MOST_BATCHES))
    if not batches:
        raise CompileError("examine(data=...) has no batch: give pairs of inputs and target.")
    for place, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise CompileError(
                f"examine(data=...): batch {place} is {type(batch).__name__}, no pair: give (inputs, target)."
            )
    return batches


def _aligned(
    model: nn.Module, rule: Any, plan: Any, batches: Sequence[tuple[Any, Any]], devices: int, options: Mapping[str, Any]
) -> AlignedWiring:
    """Trains a copy of the model on all batches, and compares its updates with the gradient on the first one."""
    name = plan if isinstance(plan, str) else plan.name
    inputs, target = batches[0]
    given = {key: value for key, value in options.items() if value is not None}
    example = inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        net = compile(
            copy.deepcopy(model), rule, example_inputs=example, plan=plan, optimizer=_optimizer(rule, plan), **given
        )
        for x, y in batches:
            net.step(x, y)
        seconds = net.schedule(devices=devices, target=target).simulate().makespan
    except CompileError as error:
        return AlignedWiring(name, problem=str(error))
    cosines = list(_cosines(net, inputs, target))
    return AlignedWiring(name, statistics.mean(cosines) if cosines else math.nan, seconds)


def _optimizer(rule: Any, plan: Any) -> optim.Optimizer:
    """What a few steps are made with: Adam, at the rates of the rule's own recipe."""
    recipe = recipe_of(rules_of(rule), plan)
    return optim.Adam(lr=recipe.lr, feedback_lr=recipe.feedback_lr, output_rate=recipe.output_rate or 1.0)


def _cosines(net: LocalNet, inputs: Any, target: Any) -> Iterator[float]:
    """The cosine between update and gradient of each hidden region that has a gradient."""
    outputs = {region.name for region in net.graph.regions if region.is_output}
    for name, region in net.measure(inputs, target).regions.items():
        if name not in outputs and not math.isnan(region.angle):
            yield region.cosine
