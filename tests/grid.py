"""The grid of models and rules: what each cell must hold, and where its outcome is kept.

Everyday tests run some cells; `make coverage` runs all (`run_grid`), keeps every outcome as a line of a file, and goes
on from there when it is run again.
"""

import contextlib
import copy
import itertools
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import kept
import torch
from against_autograd import (
    BATCH,
    NORMS_IN_FLOAT32,
    ROUNDS_OTHERWISE,
    SEED,
    assert_same_output,
    check_against_autograd,
    forbidden,
    gradients,
    moved_by_autograd,
)
from choose import rules_of_ours
from zoo import LARGE, SMALL
from zoo_architectures import ARCHITECTURES
from zoo_cases import Case
from zoo_more import MORE
from zoo_operators import OPERATORS

import altprop

HEADINGS = {
    "Architectures": (*ARCHITECTURES.values(), *MORE, *LARGE),
    "Operators and structure": OPERATORS,
    "Small models": SMALL,
}
CASES = {case.name: case for cases in HEADINGS.values() for case in cases}
RULES = tuple(sorted(rules_of_ours(), key=lambda rule: rule != "bp"))
FAINT = 1e-12
"""Updates below this are rounding."""
AMPLIFIED = (1e3, 1e6, 1e9, 1e12)
STRONGER = (1.0, 3.0, 10.0, 100.0)
"""What feedback matrices are multiplied with, to see whether an error fades on its way."""
DRAWS = 4
FAILS = "**fails**"


def records(path: Path) -> dict[str, dict[str, Any]]:
    """What was kept of each cell, by `"model rule"`: outcome, seconds, version of torch. A later line counts."""
    found = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):  # a run was killed in the middle of it
            record = json.loads(line)
            found[record["cell"]] = record
    return found


def load(path: Path) -> dict[str, str]:
    """Outcomes so far, by `"model rule"`."""
    return {cell: record["outcome"] for cell, record in records(path).items()}


def wanting(path: Path, failed: bool = True) -> list[tuple[str, str]]:
    """The cells without an outcome, and if `failed` those that failed, model by model."""
    known = {cell for cell, outcome in load(path).items() if not (failed and outcome.startswith(FAILS))}
    return [(name, rule) for name in CASES for rule in RULES if f"{name} {rule}" not in known]


def save(path: Path, name: str, rule: str, outcome: str, seconds: float) -> None:
    """Keeps the outcome of a cell; processes may do so at the same time, as a line is one write at the file's end."""
    record = {"cell": f"{name} {rule}", "outcome": outcome, "seconds": round(seconds, 1), "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, f"{json.dumps(record)}\n".encode())
    finally:
        os.close(handle)


def tidy(path: Path, drop: Collection[tuple[str, str]] = ()) -> None:
    """Sorts the file, a line a cell, without cells that are to be run again."""
    dropped = {f"{name} {rule}" for name, rule in drop}
    kept = [json.dumps(record) for cell, record in sorted(records(path).items()) if cell not in dropped]
    if kept:
        path.write_text("\n".join(kept) + "\n", "utf-8")


def run_cell(name: str, rule: str) -> str:
    """Runs a cell and returns its outcome: "yes", what holds instead, or the sentence of a refusal.

    Raises:
        Exception: the cell does not hold.
    """
    try:
        if rule == "bp":
            check_plain(CASES[name])
            check_against_autograd(CASES[name])
            return f"to {NORMS_IN_FLOAT32[name]}" if name in NORMS_IN_FLOAT32 else "yes"
        return check_rule(CASES[name], rule)
    except altprop.CompileError as error:
        return f"refused: {re.sub('[^ ]*/site-packages/', '', str(error))}"


def check_plain(case: Case) -> None:
    """What is of no rule: the model is examined, and a checkpoint of the plain model loads."""
    other = case.model(seed=1)
    report = altprop.examine(kept.captured(case))
    found = [
        finding
        for finding in report.findings
        if finding.level == "error" and "nothing that the model returns is made of it: freeze" not in finding.what
    ]
    assert not found, report
    net = kept.net(case, "bp")
    net.model.load_state_dict(other.state_dict())
    assert_same_forward(case, net, other)


def assert_same_forward(case: Case, net: altprop.LocalNet, plain: torch.nn.Module) -> None:
    torch.manual_seed(SEED)
    expected = case.call(plain, case.inputs(BATCH))
    torch.manual_seed(SEED)
    assert_same_output(case.call(net, case.inputs(BATCH)), expected, ROUNDS_OTHERWISE.get(case.name, 0.0))


def check_rule(case: Case, rule: str) -> str:
    """One step by a rule moves every parameter that autograd would move, unless the plan freezes it.

    The forward has the bits of the model's, autograd is forbidden, and a batch of another size is trained on too. Along
    a deep chain an error may fade until an update is as small as rounding; the outcome says so.
    """
    net = kept.net(case, rule, optimizer=altprop.optim.SGD(lr=0.01))
    model = net.model
    # With a callable loss the program is made when the target's form is known, at the first call.
    net.backward(case.inputs(BATCH), case.target(BATCH))
    if "forward" in net.graph.programs:
        plain = case.model()
        plain.load_state_dict(net.model.state_dict())  # the forward moves buffers, as those of a spectral norm
        assert_same_forward(case, copy.deepcopy(net), plain)
    net.zero_grad(set_to_none=True)
    patched = mock.patch.multiple(torch.autograd, backward=forbidden, grad=forbidden)
    with patched, torch.no_grad(), mock.patch.object(torch.Tensor, "backward", forbidden):
        net.backward(case.inputs(BATCH), case.target(BATCH))
        sizes = {key: 0.0 if grad is None else float(grad.abs().max()) for key, grad in gradients(model).items()}
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        loss = net.step(case.inputs(BATCH), case.target(BATCH))
        other = net.backward(case.inputs(BATCH + 3), case.target(BATCH + 3))
    assert torch.isfinite(loss)
    assert torch.isfinite(other)
    frozen = {row.parameter for row in net.explain().rows if row.how == "frozen"}
    wanted = moved_by_autograd(case) - frozen
    assert wanted
    still = {key for key in wanted if torch.equal(before[key], dict(model.named_parameters())[key])}
    assert not {key for key in still if sizes[key] > FAINT}
    faint = {key: sizes[key] for key in wanted if not sizes[key] > FAINT}
    assert not faint or faint_alone(case, rule, faint)
    fades = f"fades in {len(faint)} of {len(wanted)}" if faint else ""
    return ", ".join(filter(None, (fades, "" if wanted == moved_by_autograd(case) else "frozen in part"))) or "yes"


def faint_alone(case: Case, rule: str, faint: Mapping[str, float]) -> bool:
    """Whether updates as small as rounding are so because the error is: a stronger one, or other matrices, reach them.

    Where activations are bounded, as in a target `phi(h - beta d)`, a stronger loss alone cannot pass them; and an
    inverse that ends in a flat part of its activation passes nothing on, whereas another draw of it does.
    """
    net = kept.net(case, rule)
    left = set(faint)
    for factor, drawn in itertools.chain(
        ((factor, None) for factor in AMPLIFIED), ((1.0, draw) for draw in itertools.product(range(DRAWS), STRONGER))
    ):
        if drawn:
            redraw(net, *drawn)
        net.zero_grad(set_to_none=True)
        torch.manual_seed(SEED)
        (case.loss_of(case.call(net, case.inputs(BATCH)), case.target(BATCH)) * factor).backward()
        found = gradients(net.model)
        # A stronger loss has to be felt; with other matrices the update has to be more than rounding.
        least = {key: max(FAINT, faint[key]) if drawn else faint[key] for key in left}
        left -= {key for key in left if (grad := found[key]) is not None and float(grad.abs().max()) > least[key]}
        if not left:
            return True
    return False


def redraw(net: altprop.LocalNet, seed: int, strength: float) -> None:
    """Draws feedback and auxiliary parameters anew, so that each keeps or multiplies the size of what it is given."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in net.feedback.values():
            if matrix.is_floating_point():
                normal = torch.randn(matrix.shape, generator=generator, dtype=matrix.dtype)
                matrix.copy_(normal * strength / max(1, matrix.shape[-1] if matrix.dim() else 1) ** 0.5)
