"""On what depends what follows capture: the key of the cache.

A key is a text of several parts, each a heading and what it says; its digest is the name of an entry. The parts are
the versions of torch, of Python and of this package's own source; the machine and the state of torch; the captured
graph; the plan; the rules, the loss, the optimizer, the target and what the backend wants. The numbers that change
from step to step, such as the learning rate, are no part of it, and neither are the tensors of the model.
"""

import dataclasses
import functools
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altprop.compiler.cache.fingerprint import NotToldError, fingerprint
from altprop.ir.argument_text import format_arguments
from altprop.ir.backend import Wants
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.fakes import format_fake
from altprop.ir.forms import ambient
from altprop.ir.loss import Loss
from altprop.ir.operators import operator_text
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import WiringPlan
from altprop.ir.region import Region
from altprop.ir.size_text import TextError, format_size
from altprop.ir.torch_private import pytree
from altprop.passes.tune.kernels import onednn_pays
from altprop.passes.tune.tuning_order import OURS, order
from altprop.rules.base import Rule
from altprop.rules.feedback import DIRECT, EDGE, DirectKind, EdgeKind

VERSION = 1

# Whose operators are those of versions that the key has; the derivative of another's is not seen.
_SPACES = ("aten", "prims", "prim", "altprop", "operator", "torch", "math")
_OF_A_STEP = ("lr", "feedback_lr")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a compilation is asked for, beside its captured graph.

    Attributes:
        regions: how the graph was cut.
        plan: the plan.
        rules: all that the plan names, by their texts, and those that take turns with them.
        loss: the loss.
        target: tree of fake tensors of the target's form, or None.
        optimizer: inside the program, or None.
        wants: how programs are made for the backend.
        turns: how programs take turns, in words.
    """

    regions: tuple[Region, ...]
    plan: WiringPlan
    rules: Mapping[str, Rule]
    loss: Loss
    target: Any
    optimizer: Optimizer | None
    wants: Wants
    turns: str = ""


def key_of(captured: CapturedGraph, asked: Asked) -> Callable[[], str]:
    """Returns what returns the name of the entry that a compilation would make, each time as things are then.

    What a user's rule or loss reads, and the state of torch, may change between a compilation and the making of its
    programs.

    Raises:
        NotToldError: something that it depends on cannot be told, or has no text.
    """
    fixed = _digest(_fixed(captured, asked.regions))
    return lambda: _digest(_changing(fixed, captured, asked))


def _digest(parts: Iterator[str]) -> str:
    digest = hashlib.sha256()
    try:
        for part in parts:
            digest.update(f"{part}\n".encode("utf-8", "surrogatepass"))
    except TextError as error:
        raise NotToldError(str(error)) from error
    return digest.hexdigest()


def _fixed(captured: CapturedGraph, regions: tuple[Region, ...]) -> Iterator[str]:
    yield f"altprop cache {VERSION}, source {source_digest()}"
    yield f"torch {torch.__version__} {torch.version.git_version}, numpy {np.__version__}, python {sys.version}"
    yield from _captured(captured)
    yield from map(repr, regions)


def _changing(fixed: str, captured: CapturedGraph, asked: Asked) -> Iterator[str]:
    yield fixed
    yield from _machine(captured)
    yield str(asked.plan)
    for text, rule in sorted(asked.rules.items()):
        yield f"rule {text} {_rule(rule)}"
    for one in order():
        yield f"tuning {one}" if one in OURS else f"tuning {_told(one.name, one)}"
    yield from _kinds(asked.plan)
    yield f"loss {_told('the loss', asked.loss)}"
    yield f"optimizer {_optimizer(asked.optimizer)}, {asked.wants}, turns {asked.turns}"
    leaves, spec = pytree.tree_flatten(asked.target)
    yield f"target {spec} {[_form(leaf) for leaf in leaves]}"


@functools.cache
def source_digest() -> str:
    """Returns a digest of this package's source: a file that changes makes all entries foreign."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(package, followlinks=True)):
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".py")):
            digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _machine(captured: CapturedGraph) -> Iterator[str]:
    """What passes and traces ask of the machine and of torch's state."""
    yield f"machine {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {onednn_pays()}"
    kinds = {value.device for value in map(captured.value, captured.nodes) if isinstance(value, torch.Tensor)}
    for device in sorted(kinds, key=str):
        there = device.type == "cuda" and torch.cuda.is_available()
        yield f"device {device} {torch.cuda.get_device_properties(device) if there else ''}"
    cudnn = torch.backends.cuda.cudnn_sdp_enabled(), torch.get_float32_matmul_precision()
    yield f"ambient {ambient()} {cudnn} {torch.get_default_device()}"


def _captured(captured: CapturedGraph) -> Iterator[str]:
    """All of a captured graph; what a user's own operators do is not seen, so they are refused."""
    yield f"batch {format_size(captured.batch)} {_example(captured.batch)}"
    for node in captured.graph.nodes:
        if node.op == "call_function":
            operator = operator_text(node.target)
            if operator is None or operator.partition(".")[0] not in _SPACES:
                raise NotToldError(f"the model calls {node.target}, whose derivative is not seen")
            called = f"{operator}({format_arguments(node.args, node.kwargs)})"
        elif node.op == "output":
            called = format_arguments(node.args, node.kwargs)
        else:
            called = f"{node.op} {node.target}"
        yield f"{node.name} = {called}: {_form(node.meta.get('val'))}"
    for field in ("parameters", "buffers", "inputs", "outputs", "constant_outputs", "buffer_updates", "modules"):
        yield f"{field} {getattr(captured, field)!r}"
    yield f"trainable {sorted(captured.trainable)}"
    yield f"specs {captured.in_spec} {captured.out_spec}"
    for name, tensor in captured.constants.items():
        yield f"constant {name} {_told('a constant of the model', tensor)}"


def _example(batch: Any) -> object:
    return batch.node.hint if isinstance(batch, torch.SymInt) else batch


def _form(value: Any) -> str:
    if isinstance(value, torch.SymFloat | torch.SymBool):
        return str(type(value))
    tensors = (torch.Tensor, torch.SymInt, tuple, list)
    return format_fake(value) if isinstance(value, tensors) else repr(value)


def _rule(rule: Rule) -> str:
    """A rule of ours counts by its text, that of a user by what it does."""
    ours = type(rule).__module__.startswith("altprop.")
    return type(rule).__qualname__ if ours else _told(f'the rule "{rule}"', rule)


def _kinds(plan: WiringPlan) -> Iterator[str]:
    """The kinds of feedback that are a user's own, by what they do."""
    for name in sorted({c.feedback.kind for c in plan.connections}):
        kind: DirectKind | EdgeKind | None = DIRECT.get(name) or EDGE.get(name)
        if kind is not None and not type(kind).__module__.startswith("altprop."):
            yield f"kind {name} {_told(f'{name} feedback', kind)}"


def _optimizer(optimizer: Optimizer | None) -> str:
    if optimizer is None:
        return "none"
    fields = {f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer) if f.name not in _OF_A_STEP}
    ours = type(optimizer).__module__.startswith("altprop.")
    return f"{type(optimizer).__qualname__} {fields} {'' if ours else _told('the optimizer', optimizer)}"


def _told(what: str, value: Any) -> str:
    try:
        return fingerprint(value)
    except NotToldError as error:
        raise NotToldError(f"{what}: {error}") from error
