"""Makes the program that a measurement runs, and reads its results.

The program is the one that computes the updates, with the activities, pre-activations and errors among its results: a
measurement sees the feedback that is in use, never a copy of it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from altprop.ir.alone import alone
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.loss import Loss
from altprop.ir.measurement import ConnectionMeasure, Measurement, RegionMeasure, RegionSpectrum
from altprop.ir.plan import Connection
from altprop.ir.program import Program, Slot
from altprop.ir.values import ValueName
from altprop.passes.derive.local_products import replaced_parameters
from altprop.passes.derive.update_inputs import noise_name
from altprop.passes.flattening.builder import FlatBuilder
from altprop.passes.flattening.silence import refuse_silence
from altprop.passes.flattening.step_program import complete, evaluated
from altprop.rules.feedback import DIRECT, EDGE, as_heard

Tensors = Mapping[str, torch.Tensor]
Values = Mapping[Slot, torch.Tensor]

_NO_TARGET = "the form of the target is not known: call net.backward or net.step once before."


@dataclasses.dataclass(frozen=True)
class Observer:
    """What is needed to measure a compiled net.

    Attributes:
        graph: at level "derived".
        loss: the loss.
        target: tree of fake tensors of the target's form; None if it is not known.
    """

    graph: ErrorGraph
    loss: Loss
    target: Any

    def program(self) -> Program:
        """Makes the program.

        Raises:
            CompileError: the form of the target is not known yet.
        """
        if self.target is None:
            raise CompileError(_NO_TARGET)
        with alone():
            builder = complete(self.graph, self.loss, self.target)
            self._observe(builder, "activity", "preactivation")
            for name in self.graph.updates:
                builder.result(ValueName("observed", name, "error").slot, builder.value(("error", name)))
            return builder.finish("observe")

    def probe(self) -> Program:
        """Makes the program of forward and loss alone, with the activities among its results; it moves nothing.

        Raises:
            CompileError: the form of the target is not known yet.
        """
        if self.target is None:
            raise CompileError(_NO_TARGET)
        with alone():
            builder = evaluated(self.graph, self.loss, self.target)
            self._observe(builder, "activity")
            return builder.finish("probe")

    def unheard(self, silent: frozenset[str]) -> str:
        """Says which region would learn nothing where no gradient comes at some outputs; empty if none.

        Args:
            silent: names of these outputs.
        """
        try:
            refuse_silence(self.graph, silent)
        except CompileError as error:
            return str(error)
        return ""

    def _observe(self, builder: FlatBuilder, *kinds: str) -> None:
        for region in self.graph.regions:
            for kind in kinds:
                value = builder.value(("captured", getattr(region, kind)))
                builder.result(ValueName("observed", region.name, kind).slot, value)

    def measure(
        self, values: Values, gradients: Tensors, parameters: Tensors, feedback: Tensors, *, spectra: bool = False
    ) -> Measurement:
        """Reads the results.

        Args:
            values: what the program returned, and the noise that it ran with, by slot.
            gradients: true gradients of the loss, by parameter.
            parameters: by name.
            feedback: feedback parameters by name.
            spectra: whether to tell the ranks of errors and updates.
        """
        reader = _Reader(self.graph, values, parameters, feedback)
        regions = {name: reader.region(name, gradients) for name in self._forward_order()}
        connections = {c.name: reader.connection(c) for c in self.graph.connections}
        ranks = {name: reader.spectrum(name, gradients) for name in regions} if spectra else {}
        return Measurement(float(values[Slot("loss", "loss")]), regions, connections, spectra=ranks)

    def _forward_order(self) -> list[str]:
        return [region.name for region in self.graph.regions if region.name in self.graph.updates]


@dataclasses.dataclass(frozen=True)
class _Reader:
    graph: ErrorGraph
    values: Values
    parameters: Tensors
    feedback: Tensors

    def region(self, name: str, gradients: Tensors) -> RegionMeasure:
        names = [p for p in self.graph.updates[name].gradients if p in gradients]
        update = _joined([self.values[Slot("gradient", p)] for p in names])
        gradient = _joined([gradients[p] for p in names])
        e = self.values[ValueName("observed", name, "error").slot]
        squares, samples = float(e.square().sum()), max(e.shape[0], 1)
        return RegionMeasure(
            region=name,
            rule=self.graph.neurons[name].rule,
            angle=_angle(update, gradient),
            global_slope=_ratio(float(update @ gradient), float(gradient @ gradient)),
            local_slope=_ratio(samples * float(update @ update), squares),
            discrepancy=squares / samples,
            error=math.sqrt(squares),
            update=float(update.norm()),
            gradient=float(gradient.norm()),
            weights=float(_joined([self.parameters[p] for p in names]).norm()),
        )

    def spectrum(self, name: str, gradients: Tensors) -> RegionSpectrum:
        matrices = [p for p in self.graph.updates[name].gradients if p in gradients and gradients[p].dim() > 1]
        largest = max(matrices, key=lambda p: gradients[p].numel(), default=None)
        update, gradient = math.nan, math.nan
        if largest is not None:
            update = _effective_rank(self.values[Slot("gradient", largest)])
            gradient = _effective_rank(gradients[largest])
        z, e = (self.values[Slot("observed", f"{what}:{name}")].detach() for what in ("activity", "error"))
        return RegionSpectrum(name, float(z.double().square().mean().sqrt()), _effective_rank(e), update, gradient)

    def connection(self, c: Connection) -> ConnectionMeasure:
        own = {p.name: self.feedback[p.name] for p in self.graph.feedback.values() if p.serves(c.name)}
        floating = [tensor for tensor in own.values() if tensor.is_floating_point()]
        norm = float(_joined(floating).norm())
        if c.feedback.kind in DIRECT:
            return ConnectionMeasure(c.name, c.feedback.kind, self._direct(c), norm)
        angle = self._edge(c, own)
        return ConnectionMeasure(c.name, c.feedback.kind, 0.0 if angle is None else angle, norm, exact=angle is None)

    def _direct(self, c: Connection) -> float:
        """Angle between `z B^T`, the transpose of the projection, and the source's pre-activation."""
        source = as_heard(self.graph.region(c.source), c.feedback.options)
        h = self.values[ValueName("observed", c.source, "preactivation").slot]
        activity = self.values[ValueName("observed", c.target, "activity").slot]
        tensors = {p.part: self.feedback[p.name] for p in self.graph.feedback.values() if p.serves(c.name)}
        if tuple(map(str, source.error_shape[1:])) != tuple(map(str, h.shape[1:])) or not tensors:
            return math.nan

        def message(error: torch.Tensor) -> torch.Tensor:
            return DIRECT[c.feedback.kind].project(error, tensors, activity, c.feedback.options)

        (estimate,) = torch.func.vjp(message, torch.zeros_like(h))[1](activity)
        return _mean_angle(estimate.flatten(1), h.flatten(1))

    def _edge(self, c: Connection, own: Tensors) -> float | None:
        """Angle between what stands in the weights' place and the weights; None where nothing else stands there."""
        stands = {p.stands_for: own[p.name] for p in self.graph.feedback.values() if p.name in own}
        places, weights = [], []
        for name in replaced_parameters(self.graph.locals[c.source], self.graph.region(c.target).outputs):
            weight = self.parameters[name]
            noise = self.values.get(Slot("noise", noise_name(c, name)))
            places.append(EDGE[c.feedback.kind].substitute(weight, stands.get(name), noise, c.feedback.options))
            weights.append(weight)
        if all(place is None for place in places):
            return None
        pairs = zip(places, weights, strict=True)
        return _angle(_joined([weight if place is None else place for place, weight in pairs]), _joined(weights))


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    flat = [tensor.detach().flatten().to(torch.float64) for tensor in tensors]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)


def _effective_rank(matrix: torch.Tensor) -> float:
    """Returns `(sum s^2)^2 / sum s^4` over the singular values of the rows; NaN of zeros."""
    rows = matrix.detach().flatten(1).double()
    if not rows.numel() or not float(size := rows.abs().max()) > 0:
        return math.nan
    rows = rows / size
    gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    return float(gram.trace().square() / gram.square().sum())


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan


def _angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """Angle between two vectors in degrees."""
    scale = float(one.norm() * other.norm())
    return math.degrees(math.acos(max(-1.0, min(1.0, float(one @ other) / scale)))) if scale else math.nan


def _mean_angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """Angle between two rows in degrees, averaged over the rows."""
    cosines = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=1)
    return float(torch.rad2deg(torch.acos(cosines.clamp(-1, 1))).mean())
