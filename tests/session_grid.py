"""Rules and models in onnxruntime: twenty steps beside torch, and where each outcome is kept.

Everyday tests run some cells. `docs/write_sessions.py` runs all, keeps each outcome in a file, goes on from there when
it is run again, and writes the table of `docs/onnx.md`.
"""

import copy
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from choose import rules_of_ours
from onnx_nets import zoo_net
from zoo import ZOO
from zoo_cases import Case, single

import altprop
from altprop.compiler.export.contract import HELD
from altprop.compiler.export.reference import reference
from altprop.compiler.export.retrace import SEED, STEP
from altprop.compiler.export.subject import flat_program
from altprop.exporting import subject_of
from altprop.ir.program import Slot
from altprop.runtime.call import Call

RULES = tuple(sorted(rules_of_ours()))
STEPS = 20
ALLOWED = 1e-5
MOST = 0.75  # of single steps; in others a value next to the kink of a ReLU may round to its other side
BAD = "**differs**"
RATE = 0.01  # what `reference` takes
Values = dict[str, torch.Tensor]


def run_cell(name: str, rule: str) -> str:
    """Runs a cell and returns its outcome.

    Returns:
        "equal": to 1e-5 of numbers up to 1, relative to the largest above. "rounding grows to 3e-05": most of the
        single steps are equal when torch starts them from the session's states, or a net in torch whose parameters are
        changed by their last bit ends as far off. "not finite": in torch too. "refused: " and the sentence.
        "**differs** by 3e-05": what ought not to be.
    """
    case = ZOO[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _compare(case, rule)
    except altprop.CompileError as error:
        return f"refused: {error}"


def _compare(case: Case, rule: str) -> str:
    eager, net = (_compiled(case, rule, backend) for backend in ("eager", "onnxruntime"))
    nudged, fresh = copy.deepcopy(eager), copy.deepcopy(net)
    start = _copied(nudged.state_dict())
    actual, draws = _run(net, case), _draws(net)
    expected = _follow(eager, case, net) if draws else _run(eager, case)
    if not all(map(_finite, expected.values())):
        return "not finite"
    gap = distance(expected, actual)
    if gap <= ALLOWED:
        return "equal"
    if sum(one <= ALLOWED for one in step_by_step(nudged, fresh, case)) >= MOST * STEPS:
        return f"rounding grows to {gap:.0e}"
    nudged.load_state_dict(start)
    with torch.no_grad():
        for parameter in nudged.model.parameters():
            parameter.copy_(torch.nextafter(parameter, parameter + 1))
    drift = distance(expected, _follow(nudged, case, net) if draws else _run(nudged, case))
    return f"rounding grows to {gap:.0e}" if gap <= 10 * drift else f"{BAD} by {gap:.0e}"


def _compiled(case: Case, rule: str, backend: str) -> Any:
    return zoo_net(case, rule, altprop.optim.SGD(lr=RATE, momentum=0.9), backend=backend)


def batches(case: Case) -> list[tuple[Any, Any]]:
    """Twenty batches of 8, 9 and 10."""
    sizes = [8 + step % 3 for step in range(STEPS)]
    made = {size: (single(case.inputs(size)), single(case.target(size))) for size in set(sizes)}
    return [made[size] for size in sizes]


def _run(net: Any, case: Case) -> Values:
    losses = [net.step(*batch) for batch in batches(case)]
    return {"loss": torch.stack([loss.detach() for loss in losses])} | dict(net.state_dict())


def _draws(net: Any) -> bool:
    """Whether the session draws random numbers: from a seed, where torch has a stream of its own."""
    steps = [kept.variant.executor("step") for kept in net.compilations.variants if _steps(kept)]
    return any(SEED in step.session.program.inputs for step in steps if step.session is not None)


def _steps(kept: Any) -> bool:
    return "step" in kept.variant.compiled.graph.programs


def _follow(net: Any, case: Case, other: Any) -> Values:
    """The same steps in torch, with the random numbers that the other net's session draws."""
    losses = []
    for step, batch in enumerate(batches(case)):
        made = _drawn_step(net, other, step, *batch)
        losses.append(made.pop("loss"))
        kept = net.state_dict()  # without buffers that are not persistent, which no step moves
        net.load_state_dict({key: made.get(key, value) for key, value in kept.items()})
    return {"loss": torch.stack(losses)} | made


def _drawn_step(net: Any, other: Any, step: int, inputs: Any, target: Any) -> Values:
    """One step in torch from the net's states, which stay, with the random numbers that the other net's session draws.

    Returns:
        The loss, and by the net's own keys what it moves.
    """
    call = Call.from_inputs(inputs)
    variant = net._variant(call, target)
    subject = subject_of(net, other.compilations.compiler.options, target, variant)
    program = flat_program(subject, "step", outputs=False)
    start = {slot: variant.tensor(slot) for slot in program.inputs if slot.kind in (*HELD, "constant")}
    given = {k: one.contiguous() for k, one in variant.given(call, target).items() if isinstance(one, torch.Tensor)}
    given |= other._variant(call, target).numbers(other.optimizer, other.feedback.seed, step + 1)
    made = reference(subject, program, {**start, **given})
    moved = {subject.key(slot): value for slot, value in made.items() if slot.kind in HELD and slot != STEP}
    return {"loss": made[Slot("loss", "loss")]} | moved


def step_by_step(net: Any, other: Any, case: Case) -> list[float]:
    """The distances after single steps, of twenty that torch starts where the other net's session starts."""
    found = []
    for step, batch in enumerate(batches(case)):
        net.load_state_dict(_copied(other.state_dict()))
        loss = other.step(*batch)
        ended = _copied(other.state_dict())
        expected = _drawn_step(net, other, step, *batch) if _draws(other) else _stepped(net, batch)
        found.append(distance(expected, {"loss": loss, **ended}))
        other.load_state_dict(ended)  # what a session is fed is counted
    return found


def _stepped(net: Any, batch: tuple[Any, Any]) -> Values:
    return {"loss": net.step(*batch), **net.state_dict()}


def _copied(values: Mapping[str, torch.Tensor]) -> Values:
    return {key: value.clone() for key, value in values.items()}


def _finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def distance(one: Values, other: Values) -> float:
    """The largest difference of values that both have; of those above 1, relative to the largest of their tensor."""
    assert len(one.keys() & other.keys()) > 1
    gaps = [_gap(one[key].detach(), other[key].detach()) for key in one.keys() & other.keys()]
    return max(gaps)


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    if not one.numel():
        return 0.0
    first, second = one.double(), other.double()
    gap = float((first - second).abs().max() / first.abs().max().clamp(min=1.0))
    return gap if gap == gap else float("inf")


def load(path: Path) -> dict[str, str]:
    """Outcomes so far, by `"model rule"`."""
    found: dict[str, str] = _kept(path)["cells"]
    return found


def processors(path: Path) -> list[str]:
    """The processors on which cells have run."""
    found: list[str] = _kept(path)["processors"]
    return found


def _kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"processors": [], "cells": {}}
    return found


def fill(
    path: Path,
    models: Sequence[str],
    rules: Sequence[str],
    seconds: float,
    *,
    processor: str = "",
    again: str = BAD,
) -> Iterator[str]:
    """Runs cells until the time is up; keeps each outcome at once, and yields it.

    Args:
        path: where outcomes are kept.
        models: of the cells.
        rules: of the cells.
        seconds: no cell begins after as many.
        processor: what this machine has, for the page.
        again: cells are run that have no outcome, or one that begins so.
    """
    end = time.monotonic() + seconds
    for name in models:
        for rule in rules:
            known = _kept(path)
            if known["cells"].get(f"{name} {rule}", again).startswith(again) and time.monotonic() < end:
                known["cells"][f"{name} {rule}"] = outcome = _outcome(name, rule)
                known["processors"] = sorted({*known["processors"], processor} - {""})
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
                yield f"{name} {rule}: {outcome}"


def _outcome(name: str, rule: str) -> str:
    try:
        return run_cell(name, rule)
    except Exception as error:  # the next cells are run in any case
        return f"{BAD}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def table(outcomes: Mapping[str, str]) -> str:
    """The table of `docs/onnx.md`: a line for each model, of the rules that have run; what has not is said above it."""
    lines = ["| model | equal | not equal |", "| --- | --- | --- |"]
    notes: list[str] = []
    for name in ZOO:
        found = {rule: outcomes[f"{name} {rule}"] for rule in RULES if f"{name} {rule}" in outcomes}
        equal = [rule for rule, outcome in found.items() if outcome == "equal"]
        others: dict[str, list[str]] = {}
        for rule, outcome in found.items():
            if outcome.startswith("refused: "):
                note = outcome.removeprefix("refused: ")
                notes.extend([note] if note not in notes else [])
                outcome = f"refused ({notes.index(note) + 1})"
            if outcome != "equal":
                others.setdefault(outcome, []).append(rule)
        text = "; ".join(f"{', '.join(rules)}: {outcome}" for outcome, rules in others.items())
        lines.append(f"| {name} | {len(equal)} of {len(found)} | {text} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


def ran(outcomes: Mapping[str, str]) -> str:
    """A sentence on how much of the grid has run."""
    whole = [rule for rule in RULES if all(f"{name} {rule}" in outcomes for name in ZOO)]
    never = [rule for rule in RULES if not any(f"{name} {rule}" in outcomes for name in ZOO)]
    part = [rule for rule in RULES if rule not in (*whole, *never)]
    words = [f"{len(whole)} of {len(RULES)} rules have run on all {len(ZOO)} models"]
    words += [f"on some of them {', '.join(part)}"] if part else []
    words += [f"on none {', '.join(never)}"] if never else []
    return "; ".join(words) + "."
