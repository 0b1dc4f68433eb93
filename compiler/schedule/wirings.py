"""`plan="auto"`: searches wirings for a number of devices, by predicted step time under a memory limit.

What is weighed: direct, chain, and recursive plans of two depths, whose groups end at bottlenecks (regions narrower
than their neighbours), at block boundaries, or every few regions. Before anything is derived, times come from sizes
alone: the forward runs in a row; then targets and updates run on whichever device is free first, each target as soon
as the error that it hears from is there, with the machine's time for every error that goes to another device. The
paper's own example (Ororbia, Mali, Kifer and Giles 2023) comes out so: targets of layers 8, 5 and 2 on three devices,
then of the rest on five.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import PlanError
from altprop.ir.machine import Machine
from altprop.ir.plan import WiringPlan
from altprop.ir.region import Region
from altprop.rules.base import Rule
from altprop.rules.plans import Network, make_plan

_BYTES = 4
_OPERATORS = 3


@dataclasses.dataclass(frozen=True)
class Weighed:
    """One wiring that was weighed.

    Attributes:
        text: its plan.
        plan: the plan, or None where it cannot be made.
        seconds: predicted time of a step.
        memory: bytes of feedback on the device that holds most.
        waves: regions whose targets are made side by side, wave by wave.
        problem: why it was passed over, or "".
    """

    text: str
    plan: WiringPlan | None = None
    seconds: float = float("inf")
    memory: int = 0
    waves: tuple[tuple[str, ...], ...] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class WiringSearch:
    """What a search weighed, best first.

    Attributes:
        devices: number of devices.
        found: all wirings, the chosen one first.
    """

    devices: int
    found: tuple[Weighed, ...]

    @property
    def best(self) -> Weighed:
        """The wiring that was chosen."""
        return self.found[0]

    def __str__(self) -> str:
        lines = [f"wirings weighed for {self.devices} devices"]
        width = max(len(one.text) for one in self.found)
        for one in self.found:
            numbers = f"{one.seconds * 1e3:8.3f} ms  {one.memory / 2**20:8.2f} MiB of feedback on one device"
            lines.append(f"  {one.text:{width}}  {one.problem or numbers}")
        lines.append(f"chosen: {self.best.text}")
        for index, wave in enumerate(self.best.waves, start=1):
            used = min(len(wave), self.devices)
            lines.append(f"  wave {index}, {used} device{'s' if used > 1 else ''}: targets of {', '.join(wave)}")
        return "\n".join(lines)


def search_wirings(
    captured: CapturedGraph,
    network: Network,
    rule_of: Callable[[Region], Rule | None],
    *,
    devices: int,
    batch: int,
    machine: Machine | None = None,
) -> WiringSearch:
    """Weighs wirings and returns them, best first.

    Args:
        captured: the forward graph.
        network: its regions.
        rule_of: the rule of each region.
        devices: number of devices.
        batch: samples of a step.
        machine: numbers of the devices and links; its `memory` is the limit of feedback on one device.

    Raises:
        PlanError: no wiring fits.
    """
    sizes = _Sizes(captured, network, batch, machine or Machine())
    found = [_weigh(text, network, rule_of, sizes, devices) for text in candidates(network)]
    found.sort(key=lambda one: (bool(one.problem), one.seconds, one.memory, len(one.waves)))
    if found[0].problem:
        raise PlanError('plan="auto": no wiring fits: ' + "; ".join(f"{f.text}: {f.problem}" for f in found))
    return WiringSearch(devices, tuple(found))


def candidates(network: Network) -> list[str]:
    """Returns the plans to weigh."""
    hidden = [region for region in network.regions if not region.is_output]
    found = ["direct", "chain"]
    if any(region.block for region in hidden):
        found.append("blocks")
    groups = ["by='bottleneck'", "by='block'", *(f"gap={gap}" for gap in range(2, min(len(hidden), 9)))]
    return found + [f"recursive(depth={depth}, {by})" for by in groups for depth in (2, 3)]


class _Sizes:
    """Predicted seconds of the parts of a step."""

    def __init__(self, captured: CapturedGraph, network: Network, batch: int, machine: Machine) -> None:
        self.network, self.batch, self.machine = network, batch, machine
        named = {name: captured.value(value) for value, name in captured.parameters.items()}
        self.products = {region.name: self._products(region, named) for region in network.regions}

    def _products(self, region: Region, named: Mapping[str, object]) -> int:
        """Multiplications of a region's forward for one sample: units times inputs of each."""
        fan = 0
        for name in region.parameters:
            shape: Any = getattr(named.get(name), "shape", ())
            if len(shape) > 1:
                fan += int(shape[1:].numel())
        return region.error_units * max(fan, 1)

    def work(self, region: Region) -> float:
        """Seconds of a region's forward, and of its local update."""
        products = self.products[region.name]
        touched = _BYTES * (self.batch * region.units + products // max(region.units, 1))
        return self.machine.seconds(2 * self.batch * products, touched, _OPERATORS)

    def message(self, source: Region, target: Region) -> float:
        """Seconds of a message over a matrix, and of the error that it makes."""
        products = source.error_units * target.units
        touched = _BYTES * (products + self.batch * (source.error_units + 2 * target.units))
        return self.machine.seconds(2 * self.batch * products, touched, _OPERATORS)

    def transfer(self, source: Region) -> float:
        """Seconds that the source's error is under way to another device."""
        return self.machine.transfer(_BYTES * self.batch * source.error_units)


def _weigh(
    text: str,
    network: Network,
    rule_of: Callable[[Region], Rule | None],
    sizes: _Sizes,
    devices: int,
) -> Weighed:
    try:
        plan = make_plan(network, rule_of, text)
    except PlanError as error:
        return Weighed(text, problem=str(error).rstrip("."))
    run = _Run(plan, sizes, devices)
    run.errors()
    memory = max(run.memory)
    limit = sizes.machine.memory
    problem = f"{memory} bytes of feedback on one device, the limit is {limit}" if limit and memory > limit else ""
    return Weighed(text, plan, run.finish(), memory, _waves(plan), problem)


class _Run:
    """Puts targets and updates on devices, the one that ends first."""

    def __init__(self, plan: WiringPlan, sizes: _Sizes, devices: int) -> None:
        self.plan, self.sizes = plan, sizes
        start = sum(sizes.work(region) for region in sizes.network.regions)
        self.free = [start] * devices
        self.memory = [0] * devices
        self.made: dict[str, tuple[float, int]] = {}
        self.start = start

    def errors(self) -> None:
        """All targets, in the order in which errors are sent; those that others hear from come first."""
        for wave in _waves(self.plan, outputs=True):
            for name in wave:
                self._error(name)

    def _error(self, name: str) -> None:
        network = self.sizes.network
        incoming = [c for c in self.plan.incoming(name) if c.source in self.made]
        region = network.region(name)
        if not incoming:
            self.made[name] = self.start, len(self.free) - 1
            return
        seconds = sum(self.sizes.message(network.region(c.source), region) for c in incoming)
        ends = [self._ready(device, [c.source for c in incoming]) + seconds for device in range(len(self.free))]
        device = min(range(len(ends)), key=lambda d: (ends[d], self.memory[d], d))
        self.free[device] = ends[device]
        self.made[name] = ends[device], device
        self.memory[device] += sum(_BYTES * network.region(c.source).error_units * region.units for c in incoming)

    def _ready(self, device: int, sources: Sequence[str]) -> float:
        """When a device can begin: it is free, and the errors have come."""
        times = [self.free[device]]
        for source in sources:
            when, place = self.made[source]
            times.append(when if place == device else when + self.sizes.transfer(self.sizes.network.region(source)))
        return max(times)

    def finish(self) -> float:
        """All updates, each where its target was made; returns the end of the step."""
        for name, (_, device) in self.made.items():
            self.free[device] += self.sizes.work(self.sizes.network.region(name))
        return max(self.free)


def _waves(plan: WiringPlan, outputs: bool = False) -> tuple[tuple[str, ...], ...]:
    """Regions by the number of connections between them and the loss; later regions of the forward first."""
    depth: dict[str, int] = {}
    for name in plan.order():
        depth[name] = 1 + max((depth[c.source] for c in plan.incoming(name)), default=-1)
    order = {region.name: -index for index, region in enumerate(plan.regions)}
    levels = range(0 if outputs else 1, max(depth.values()) + 1)
    return tuple(tuple(sorted((n for n in depth if depth[n] == level), key=order.__getitem__)) for level in levels)
