"""How far one step really lowers the loss and the regions' own errors (Zenkai, arXiv 2311.09663).

With `theta` the parameters, `theta'` what a step of the optimizer makes of them, `L` the loss of a batch, and `E_i`
half the mean over samples of the squared distance between the activity of region i and its target `t = z - e`:

    LER_i = (E_i(theta_i) - E_i(theta'_i)) / E_i(theta_i)                    local error reduction
    GER_i = (L(theta) - L(theta, region i at theta')) / L(theta)             global error reduction, one region alone
    GER   = (L(theta) - L(theta')) / L(theta)                                of the whole step
    interaction = GER - sum_i GER_i

Cumulative reductions replace one region after the other, in the order in which they are updated, so that they add up
to that of the whole step. Targets, dropout masks and noise are those of the step. A weight that several regions share
moves in all of them at once. A learner has what it has learned in the place of parameters, and its target is
`t = z - step e`.
"""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.learner_operators import learners_of, put_back, standing_in
from altprop.ir.measurement import Measurement, RegionMeasure
from altprop.ir.optimizers import Optimizer
from altprop.ir.program import Slot
from altprop.ir.values import ValueName
from altprop.runtime.feedback import FeedbackStore
from altprop.runtime.lessons import Lessons
from altprop.runtime.noise import Noise
from altprop.runtime.optimizer_state import OptimizerState
from altprop.runtime.true_gradients import untouched

Probe = Callable[[], Mapping[Slot, torch.Tensor]]
Values = Mapping[Slot, torch.Tensor]
MODES = ("isolated", "cumulative")


class SteppingNet(Protocol):
    """What of a net a trial step reads and moves."""

    model: nn.Module
    feedback: FeedbackStore
    state: OptimizerState
    noise: Noise
    lessons: Lessons
    optimizer: Optimizer | None

    def step(self, inputs: Any, target: Any) -> torch.Tensor:
        """Runs one step."""

    def backward(self, inputs: Any, target: Any) -> torch.Tensor:
        """Adds to `.grad`."""


def check(net: SteppingNet, mode: str, optimizer: torch.optim.Optimizer | None) -> None:
    """Refuses reductions of a step that nobody can make.

    Raises:
        CompileError: says what is missing.
    """
    if mode not in MODES:
        raise CompileError(f'mode="{mode}"; choose "isolated" or "cumulative".')
    if net.optimizer is None and optimizer is None:
        raise CompileError(
            "error reductions are those of a step, and this net was compiled without an optimizer: give "
            "altprop.compile(..., optimizer=...), or net.measure(..., reductions=True, optimizer=your_optimizer)."
        )


@dataclasses.dataclass(frozen=True)
class Stepped:
    """What a step made of a model.

    Attributes:
        parameters: by name.
        learners: copies, by their paths.
    """

    parameters: Mapping[str, torch.Tensor]
    learners: Mapping[str, nn.Module]


def trial_step(net: SteppingNet, inputs: Any, target: Any, optimizer: torch.optim.Optimizer | None = None) -> Stepped:
    """Makes a step, and undoes it.

    Args:
        net: the net.
        inputs: as for `net.step`.
        target: the loss's target.
        optimizer: of torch, for a net without one inside; it is left as it is.

    Returns:
        What the step moved.
    """
    named = dict(net.model.named_parameters())
    with _undone(net):
        if optimizer is None:
            net.step(inputs, target)
        else:
            own = {id(p): p for p in (*named.values(), *net.feedback.values())}
            mine: torch.optim.Optimizer = copy.deepcopy(optimizer, own)
            net.backward(inputs, target)
            mine.step()
            net.lessons.learn()
        parameters = {name: p.detach().clone() for name, p in named.items()}
        return Stepped(parameters, {name: copy.deepcopy(one) for name, one in learners_of(net.model).items()})


@contextlib.contextmanager
def _undone(net: SteppingNet) -> Iterator[None]:
    """Puts everything that a step moves back at the end; gradients are empty meanwhile."""
    parameters = [*net.model.parameters(), *net.feedback.values()]
    kept = [(tensor, tensor.detach().clone()) for tensor in (*parameters, *net.state.buffers())]
    gradients = [(p, p.grad) for p in parameters]
    counts = net.state.count, net.noise.count
    learned = [(one, copy.deepcopy(one)) for one in learners_of(net.model).values()]
    with untouched(net.model), net.lessons.aside():
        try:
            for p, _ in gradients:
                p.grad = None
            yield
        finally:
            with torch.no_grad():
                for tensor, before in kept:
                    tensor.copy_(before)
            for p, gradient in gradients:
                p.grad = gradient
            net.state.count, net.noise.count = counts
            for one, before_it in learned:
                put_back(one, before_it)


@dataclasses.dataclass(frozen=True)
class Reductions:
    """Measures what each region's part of a step does.

    Attributes:
        model: the model, at `theta`.
        moved: the parameters of each region, by name, in the order in which regions are updated.
        after: `theta'`.
        probe: runs the forward and the loss of the model as it is, always with the same masks and noise.
    """

    model: nn.Module
    moved: Mapping[str, Sequence[str]]
    after: Stepped
    probe: Probe

    def added(self, measurement: Measurement, errors: Mapping[str, torch.Tensor], mode: str) -> Measurement:
        """Returns a measurement with reductions.

        Args:
            measurement: without them.
            errors: what the error neurons of each region hold at `theta`.
            mode: whether the rows' `ger` is of a region alone, "isolated", or "cumulative".
        """
        before = self.probe()
        loss = _loss(before)
        alone = {name: self._at([name]) for name in self.moved}
        isolated = {name: _share(loss, _loss(values)) for name, values in alone.items()}
        whole, cumulative = self._cumulative(loss)
        ger = isolated if mode == "isolated" else cumulative

        def row(name: str, measured: RegionMeasure) -> RegionMeasure:
            ler = _local(before, alone[name], name, errors[name] * self._step(name))
            return dataclasses.replace(measured, ler=ler, ger=ger[name])

        rows = {name: row(name, measured) for name, measured in measurement.regions.items()}
        interaction = whole - math.fsum(isolated.values())
        return dataclasses.replace(measurement, regions=rows, reduction=whole, interaction=interaction)

    def _cumulative(self, loss: float) -> tuple[float, dict[str, float]]:
        """The reduction of the whole step, and each region's share where they are replaced one after the other."""
        names, last, found = list(self.moved), loss, {}
        for count, name in enumerate(names, start=1):
            now = _loss(self._at(names[:count]))
            found[name], last = (last - now) / loss if loss else math.nan, now
        return _share(loss, last), found

    def _step(self, region: str) -> float:
        """How far the target lies along the error; that of a layer is `z - e`."""
        learner = self.after.learners.get(region.partition("@")[0])
        return float(getattr(learner, "step", 1.0))

    def _at(self, regions: Sequence[str]) -> Values:
        """What the probe returns with some regions at `theta'`."""
        own = {name: self.model.get_parameter(name) for region in regions for name in self.moved[region]}
        kept = {name: p.detach().clone() for name, p in own.items()}
        with contextlib.ExitStack() as learned:
            for region in dict.fromkeys(name.partition("@")[0] for name in regions):
                for name, after in self.after.learners.items():
                    if name == region or name.startswith(f"{region}."):
                        learned.enter_context(standing_in(self.model.get_submodule(name), after))
            try:
                with torch.no_grad():
                    for name, p in own.items():
                        p.copy_(self.after.parameters[name])
                return self.probe()
            finally:
                with torch.no_grad():
                    for name, p in own.items():
                        p.copy_(kept[name])


def _loss(values: Values) -> float:
    return float(values[Slot("loss", "loss")])


def _share(before: float, after: float) -> float:
    return (before - after) / before if before else math.nan


def _local(before: Values, after: Values, name: str, e: torch.Tensor) -> float:
    """Local error reduction: `z' - t` is `z' - z + e`."""
    slot = ValueName("observed", name, "activity").slot
    e = e.detach().double()
    now = after[slot].double() - before[slot].double() + e
    return _share(float(e.square().sum()), float(now.square().sum()))
