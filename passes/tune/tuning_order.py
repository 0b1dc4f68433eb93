"""The order of the tuning passes, as data; `docs/draw_flow.py` reads it.

Simplify first, so that the others see plain patterns; reuse memory last, since merging twins would undo it. None
changes a bit of the result but the fusions, the spared input gradients, the joined projections and the choice of layout
and kernels.
"""

from altprop.ir.errors import CompileError
from altprop.passes.tune.affine import SpareInputGradients
from altprop.passes.tune.base import TuningPass
from altprop.passes.tune.channels_last import ChooseLayout
from altprop.passes.tune.fuse import FuseUpdates
from altprop.passes.tune.hold_least import HoldLeast
from altprop.passes.tune.join_projections import JoinProjections
from altprop.passes.tune.kernels import ChooseKernels
from altprop.passes.tune.masks import NarrowMasks
from altprop.passes.tune.merge import MergeTwins
from altprop.passes.tune.recompute import RecomputeActivities
from altprop.passes.tune.reuse import ReuseMemory
from altprop.passes.tune.separate_results import SeparateResults
from altprop.passes.tune.simplify import Simplify
from altprop.passes.tune.store_feedback import StoreFeedback

_ORDER: list[TuningPass] = [
    Simplify(),
    MergeTwins(),
    NarrowMasks(),
    SpareInputGradients(),
    ChooseLayout(),
    StoreFeedback(),
    JoinProjections(),
    ChooseKernels(),
    FuseUpdates(),
    Simplify(),
    SeparateResults(),
    RecomputeActivities(),
    HoldLeast(),
    ReuseMemory(),
]
OURS = tuple(_ORDER)


def order() -> tuple[TuningPass, ...]:
    """Returns the passes in their order."""
    return tuple(_ORDER)


def register(one: TuningPass, before: str = "separate_results") -> TuningPass:
    """Puts a pass of one's own into the order, before the first pass of a name; returns it.

    Programs that are compiled from then on are tuned by it too.

    Raises:
        CompileError: it is no tuning pass, or there is no pass of that name.
    """
    names = [known.name for known in _ORDER]
    if not isinstance(one, TuningPass):
        raise CompileError(f"{one!r} is no tuning pass: register an object of a class made of TuningPass.")
    if before not in names:
        raise CompileError(f'there is no tuning pass "{before}"; there are {", ".join(dict.fromkeys(names))}.')
    _ORDER.insert(names.index(before), one)
    return one


def unregister(one: TuningPass) -> None:
    """Takes a pass of one's own out of the order again."""
    _ORDER[:] = [known for known in _ORDER if known is not one]
