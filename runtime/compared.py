"""Compares what `backend="inductor"` computes with the program itself, at the first run of each form of its inputs.

Both run on copies, so that nothing has moved when they differ. What they return and what they write is compared tensor
by tensor, by the norm of the difference over the norm: rounding in another order explains a little of it, wrong code
does not.

Where a unit is within rounding of a kink, such as a relu at zero, rounding in another order turns it on or off, and a
whole gradient moves with it. So before anything is refused, the program itself runs on inputs that are changed in their
last bits: what that moves is rounding's doing, too.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from altprop.ir.errors import CompileError
from altprop.ir.operators import facts
from altprop.ir.program import Program, Slot
from altprop.ir.values import ValueName

Function = Callable[..., Any]

# Share of a tensor's norm that rounding explains, by the dtype.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
_COARSE = 5e-2
# So much smaller than the largest tensor of its kind, one may be rounding alone, such as a bias in front of a norm.
_NOISE = 1e-4
# Adam's first steps have the size of the rate, whatever the gradient: where that is all but zero, rounding turns them.
_TURNED = 0.2
# The program runs on inputs changed by this share, so many times; and by so much more may compiled code differ.
_LAST_BITS = {torch.float64: 2.0**-49, torch.float32: 2.0**-20}
_TRIALS = 3
_MARGIN = 3.0


def draws(program: Program) -> bool:
    """Whether a program draws random numbers."""
    return any(facts(node.target).draws for node in program.graph.graph.nodes if node.op == "call_function")


class Compared:
    """A compiled program that is compared with the program, once for each form of its inputs."""

    def __init__(self, program: Program, function: Function) -> None:
        """Takes the program, and what was compiled from it."""
        self._program = program
        self._function = function
        self._seen: set[Any] = set()

    def __call__(self, *args: Any) -> Any:
        """Runs the compiled program.

        Raises:
            CompileError: it computes something else; names where most.
        """
        form = tuple((a.shape, a.dtype, a.device) if isinstance(a, torch.Tensor) else None for a in args)
        if form not in self._seen:
            self._compare(args)
            self._seen.add(form)
        return self._function(*args)

    def _compare(self, args: Sequence[Any]) -> None:
        wanted = self._run(self._program.graph, args)
        worst = self._worst(args, wanted, self._run(self._function, args))
        if worst is None or worst.share <= 1:
            return
        allowed = max(1.0, _MARGIN * self._rounding(args, wanted))
        if not worst.share <= allowed:
            raise CompileError(
                f'backend="inductor": what was compiled is not the program "{self._program.name}": {worst.where} '
                f"differs by {worst.distance:.2g} of its norm, where rounding explains {allowed * worst.allowed:.0e}. "
                'Nothing has moved. Use backend="eager", or another version of torch.'
            )

    def _run(self, function: Function, args: Sequence[Any]) -> "_Made":
        """What a function returns, and what its arguments are then; it draws what every other call here draws."""
        device = next((a.device for a in args if isinstance(a, torch.Tensor) and a.is_cuda), None)
        with torch.random.fork_rng([device] if device is not None else []):
            return _run(function, args)

    def _rounding(self, args: Sequence[Any], wanted: "_Made") -> float:
        """How far the program is from itself when the last bits of its inputs change, as `_Misfit.share`."""
        found = 0.0
        for seed in range(_TRIALS):
            changed = _last_bits_changed(args, seed)
            results, after = self._run(self._program.graph, changed)
            # What the step added to the changed inputs, added to the inputs.
            each = zip(args, changed, after, strict=True)
            moved = [old + (new - start) if _is_float(old) else new for old, start, new in each]
            worst = self._worst(args, wanted, (results, moved))
            found = max(found, worst.share if worst is not None and math.isfinite(worst.share) else 0.0)
        return found

    def _worst(self, args: Sequence[Any], wanted: "_Made", found: "_Made") -> "_Misfit | None":
        return max(self._misfits(args, wanted, found), key=lambda misfit: misfit.share, default=None)

    def _misfits(self, args: Sequence[Any], wanted: "_Made", found: "_Made") -> Iterator["_Misfit"]:
        """What differs by how much, and by how much it may."""
        pairs = [*zip(self._program.outputs, wanted[0], found[0], strict=True)]
        largest = max((_norm(value) for _, value, _ in pairs), default=0.0)
        for slot, one, other in pairs:
            yield _Misfit(_text(slot), _distance(one, other, _NOISE * largest), _allowed(one))
        written = [*zip(self._program.inputs, args, wanted[1], found[1], strict=True)]
        moved = [(slot, one - old, other - old) for slot, old, one, other in written if _is_moved(old, one, other)]
        floors = {group: _NOISE * max(_norm(v) for s, v, _ in moved if _group(s) == group) for group in _groups(moved)}
        noise = {ValueName.of(slot).name for slot, one, _ in moved if _norm(one) <= floors[_group(slot)]}
        for slot, one, other in moved:
            if slot.kind in ("parameter", "feedback"):
                if slot.name not in noise:
                    distance = _distance(one, other, floors[_group(slot)])
                    yield _Misfit(_text(slot), distance, max(_TURNED, _allowed(one)))
            else:
                yield _Misfit(_text(slot), _distance(one, other, floors[_group(slot)]), _allowed(one))


@dataclasses.dataclass(frozen=True)
class _Misfit:
    """What differs, by how much of its norm, and by how much it may."""

    where: str
    distance: float
    allowed: float

    @property
    def share(self) -> float:
        """The distance over what is allowed."""
        return self.distance / self.allowed


_Made = tuple[list[Any], list[Any]]


def _run(function: Function, args: Sequence[Any]) -> _Made:
    """What a function returns, and what its arguments are then; it runs on copies."""
    copies: dict[int, Any] = {}
    for arg in args:
        if id(arg) not in copies:
            copies[id(arg)] = arg.detach().clone() if isinstance(arg, torch.Tensor) else arg
    given = [copies[id(arg)] for arg in args]
    made = function(*given)
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in made], given


def _last_bits_changed(args: Sequence[Any], seed: int) -> list[Any]:
    """Inputs whose floating-point numbers have other last bits; what is passed twice stays one tensor."""
    generator = torch.Generator().manual_seed(seed)
    changed: dict[int, Any] = {}
    for arg in args:
        if id(arg) not in changed:
            changed[id(arg)] = _changed(arg, generator) if _is_float(arg) else arg
    return [changed[id(arg)] for arg in args]


def _changed(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    signs = torch.randint(0, 2, value.shape, generator=generator).to(value.device, value.dtype) * 2 - 1
    return value.detach() * (1 + signs * _LAST_BITS.get(value.dtype, torch.finfo(value.dtype).eps))


def _group(slot: Slot) -> str:
    """Tensors of one scale: an optimizer's momenta, its squares, parameters, buffers."""
    return ValueName.of(slot).part if slot.kind == "state" else slot.kind


def _groups(moved: Sequence[tuple[Slot, Any, Any]]) -> set[str]:
    return {_group(slot) for slot, _, _ in moved}


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_moved(old: Any, one: Any, other: Any) -> bool:
    if not _is_float(old):
        return False
    return not (torch.equal(old, one) and torch.equal(old, other))


def _norm(value: Any) -> float:
    return float(torch.linalg.vector_norm(value.double())) if _is_float(value) else 0.0


def _distance(one: Any, other: Any, floor: float) -> float:
    if not _is_float(one):
        return 0.0
    if not bool((one.isfinite() == other.isfinite()).all()):
        return float("inf")
    distance = torch.where(one.isfinite(), one.double() - other.double(), 0.0)
    return _norm(distance) / max(_norm(one.nan_to_num(0.0, 0.0, 0.0)), floor, 1e-30)


def _allowed(value: Any) -> float:
    return _ROUNDING.get(value.dtype, _COARSE) if isinstance(value, torch.Tensor) else _COARSE


def _text(slot: Slot) -> str:
    return slot.name if slot.kind == slot.name else f"the {slot.kind.replace('_', ' ')} {slot.name}"
