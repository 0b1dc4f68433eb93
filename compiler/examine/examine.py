"""`altprop.examine`: a dry run that says what would compile, what would not, and why, before any work."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from altprop.compiler.capture.capture import capture
from altprop.compiler.capture.captured import Captured
from altprop.compiler.capture.quiet import quiet
from altprop.compiler.capture.unrolled import unrolled_modules
from altprop.compiler.capture.wrappers import unwrap
from altprop.compiler.collector import uncollected
from altprop.compiler.examine.examine_wiring import start_notes, wire
from altprop.compiler.examine.feedback_size import advice, default_bytes, smaller_kinds
from altprop.compiler.examine.judge_cut import judge_cut, offer_cut
from altprop.compiler.quick_fakes import quick_fakes
from altprop.ir.alone import alone
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.ir.graph import ErrorGraph
from altprop.ir.local import PARAMETERS
from altprop.ir.modes import training
from altprop.ir.plain_tensors import refuse_model
from altprop.ir.plan import WiringPlan
from altprop.ir.reading import shape_text
from altprop.ir.region import Region
from altprop.passes.cut.activation import flat_operator
from altprop.passes.cut.blocks import find_blocks
from altprop.passes.cut.roles import find_roles
from altprop.passes.cut_regions import CutRegions
from altprop.passes.derive.share import Linearizer
from altprop.rules.base import Rule
from altprop.rules.registry import rules_of

_LARGE_FEEDBACK = 2**30


@dataclasses.dataclass(frozen=True)
class Remark:
    """One thing found: `level` is "error", "warning" or "note"."""

    level: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what}" if self.where else f"{self.level}: {self.what}"


@dataclasses.dataclass(frozen=True)
class AlignedWiring:
    """What one wiring is worth on some data; `altprop.examine(..., data=)` measures it.

    Attributes:
        plan: its name.
        alignment: mean cosine between the update and the loss's gradient over hidden regions, after the data.
        seconds: predicted time of a step.
        problem: why it was passed over, or "".
    """

    plan: str
    alignment: float = math.nan
    seconds: float = math.nan
    problem: str = ""

    def __str__(self) -> str:
        return self.problem or f"alignment {self.alignment:.2f}, a step {self.seconds * 1e3:.3g} ms"


@dataclasses.dataclass(frozen=True)
class Report:
    """What `examine` found.

    Attributes:
        findings: errors first, then warnings and notes.
        graph: the graph after the cut, or None if the model cannot be captured.
        seconds: time of each step.
        aligned: what each wiring is worth on the data, where there was some.
    """

    findings: tuple[Remark, ...]
    graph: ErrorGraph | None
    seconds: Mapping[str, float]
    aligned: tuple[AlignedWiring, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the model compiles."""
        return not any(finding.level == "error" for finding in self.findings)

    def __str__(self) -> str:
        verdict = "compiles" if self.ok else "does not compile"
        lines = [f"The model {verdict}."]
        lines += [f"  {finding}" for finding in self.findings]
        if self.graph is not None:
            lines.append(f"  {len(self.graph.regions)} regions:")
            lines += [
                f"    {region.name}  {shape_text(region.shape)}  {', '.join(region.parameters)}"
                for region in self.graph.regions
            ]
        if self.aligned:
            lines.append("  wirings, with the alignment that was measured and the step time that is predicted:")
            lines += [f"    {one.plan}  {one}" for one in self.aligned]
        return "\n".join(lines)


def examine(
    model: nn.Module | Captured,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    regions: str | Sequence[str] = "layer",
    rule: str | Rule | Mapping[str, str | Rule] | None = None,
    plan: str | WiringPlan | None = None,
) -> Report:
    """Says what of a model would compile, and what would not, without data; arguments as for `altprop.examine`."""
    known = model if isinstance(model, Captured) else None
    if known is not None:
        known.check()
    try:
        model = known.model if known else unwrap(model)
        refuse_model(model)
    except CompileError as error:
        return Report((Remark("error", "", str(error)),), None, {})
    examiner = _Examiner(model, tuple(example_inputs), dict(example_kwargs or {}), known)
    rules = None if rule is None else rules_of(rule)
    with alone(), quiet(), uncollected(), quick_fakes():
        return examiner.run(regions if isinstance(regions, str) else tuple(regions), rules, plan)


class _Examiner:
    def __init__(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], captured: Captured | None = None
    ) -> None:
        self.model: nn.Module = model
        self.captured = captured
        self.args = args
        self.kwargs = kwargs
        self.findings: list[Remark] = []
        self.seconds: dict[str, float] = {}

    def run(
        self, regions: str | tuple[str, ...], rules: Mapping[str, Rule | None] | None, plan: str | WiringPlan | None
    ) -> Report:
        self.findings += _module_findings(self.model)
        captured = self._capture()
        graph = None
        if captured is not None:
            self.findings += _parameter_findings(self.model, captured)
            self.findings += [Remark("note", name, why) for name, why in unrolled_modules(self.model, captured)]
            graph = self._try("cut", lambda: CutRegions(regions)(ErrorGraph(captured)).graph)
            if graph is None and (offer := offer_cut(captured, regions)):
                self.findings.append(Remark("note", "", offer))
        if graph is not None:
            self._linearize(graph)
            self.findings += _region_findings(graph)
            if problem := judge_cut(graph.captured, graph.regions, regions):
                self.findings.append(Remark("warning", "", problem))
            if (
                rules is not None
                and (wired := self._try("wire", lambda: wire(graph, rules, plan, regions))) is not None
            ):
                self.findings += [Remark("note", "", note) for note in start_notes(wired)]
        order = ("error", "warning", "note")
        ranked = sorted(dict.fromkeys(self.findings), key=lambda finding: order.index(finding.level))
        return Report(tuple(ranked), graph, self.seconds)

    def _capture(self) -> CapturedGraph | None:
        if self.captured is not None:
            return self.captured.graph
        with training(self.model):
            captured: CapturedGraph | None = self._try("capture", lambda: capture(self.model, self.args, self.kwargs))
        return captured

    def _try(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return work()
        except CompileError as error:
            self.findings.append(Remark("error", "", str(error)))
            return None
        finally:
            self.seconds[name] = time.perf_counter() - start

    def _linearize(self, graph: ErrorGraph) -> None:
        start = time.perf_counter()
        derive = Linearizer(graph.captured)
        for region in graph.regions:
            try:
                derive(region)
            except CompileError as error:
                self.findings.append(self._underivable(derive, region, error))
        self.seconds["derive"] = time.perf_counter() - start

    def _underivable(self, derive: Linearizer, region: Region, error: CompileError) -> Remark:
        """What an operator without a derivative means: some rules never read it."""
        try:
            derive(region, {PARAMETERS})
        except CompileError:
            return Remark("error", region.name, str(error))
        what = "only rules that never ask for that derivative train it, such as reclra on plan='direct'"
        return Remark("warning", region.name, f"{error} As it is, {what}.")


def _module_findings(model: nn.Module) -> Iterator[Remark]:
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            yield Remark("error", name, "sparse gradients are not supported: use sparse=False.")
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        yield Remark("note", "", f"{len(frozen)} parameters require no grad and stay frozen: {_some(frozen)}")
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            yield Remark("note", name, f"is tied to {first[id(parameter)]}: their updates are summed")


def _parameter_findings(model: nn.Module, captured: CapturedGraph) -> Iterator[Remark]:
    used = set(captured.parameters.values())
    read = {captured.parameters[n.name] for n in captured.graph.nodes if n.name in captured.parameters and n.users}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (name not in used or name not in read):
            yield Remark(
                "error",
                name,
                "nothing that the model returns is made of it: freeze it, requires_grad_(False), or use it",
            )
    if isinstance(captured.batch, int):
        yield Remark("warning", "", f"the model fixes its batch at {captured.batch}: other sizes are captured anew")
    elif captured.facts:
        what = f"forward asks for the size of the batch as a number ({captured.facts}): others are captured anew"
        yield Remark("note", "", what)


def _region_findings(graph: ErrorGraph) -> Iterator[Remark]:
    captured = graph.captured
    if not find_blocks(captured, find_roles(captured)):
        yield Remark("note", "", 'there are no repeated blocks: regions="block" will not cut this model')
    outputs = [region for region in graph.regions if region.is_output]
    if not outputs:
        yield Remark("error", "", "no region computes what the model returns")
    for region in graph.regions:
        flat = flat_operator(captured, region)
        if flat is not None:
            what = f'has the activation "{flat}", whose derivative is zero: only rules without it, such as reclra, '
            yield Remark("note", region.name, what + "train it")
        if region.ports:
            yield Remark("note", region.name, "several values leave it; direct feedback reaches its activity only")
    if outputs:
        yield from _feedback_findings(graph, outputs[-1])


def _feedback_findings(graph: ErrorGraph, output: Region) -> Iterator[Remark]:
    """What direct feedback would take, where it is much."""
    needed = default_bytes(graph.regions, output)
    if needed > _LARGE_FEEDBACK:
        smaller = {text: size for text, size in smaller_kinds(graph.regions, output).items() if size < needed}
        size = f"direct feedback to every region would take {needed / 2**30:.1f} GiB."
        yield Remark("warning", "", f"{size} {advice(smaller)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
