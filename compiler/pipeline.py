"""Orders the passes: from a model to flat programs."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from altprop.compiler.cache.key import Asked
from altprop.compiler.cache.through import DerivedGraph, through_cache
from altprop.compiler.capture.capture import capture
from altprop.compiler.capture.foreign_draws import of_loss_and_rules
from altprop.compiler.capture.own_reads import loss_reads, rule_reads
from altprop.compiler.capture.quiet import quiet
from altprop.compiler.collector import uncollected
from altprop.compiler.examine.unasked import refuse_unasked, say_unasked
from altprop.compiler.globs import check_globs
from altprop.compiler.observe import Observer
from altprop.compiler.quick_fakes import quick_fakes
from altprop.compiler.run_passes import PassRunner
from altprop.compiler.schedule.wirings import WiringSearch, search_wirings
from altprop.ir.alone import alone
from altprop.ir.alternate import OTHER, SUFFIX, Alternation
from altprop.ir.backend import Wants
from altprop.ir.batch_facts import BatchFacts
from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.ir.explain import exact_targets
from altprop.ir.graph import ErrorGraph
from altprop.ir.learner_operators import refuse_learners
from altprop.ir.local import MissingProductError
from altprop.ir.loss import Loss
from altprop.ir.machine import Machine
from altprop.ir.on_demand import OnDemand
from altprop.ir.optimizers import Optimizer
from altprop.ir.plan import WiringPlan
from altprop.ir.reads import Read
from altprop.ir.region import Region
from altprop.ir.timings import Timings
from altprop.ir.torch_private import pytree
from altprop.ir.without_code import without_code
from altprop.passes.add_optimizer import AddOptimizer, Momenta
from altprop.passes.base import Pass
from altprop.passes.cleanup import Cleanup
from altprop.passes.connect_skip_errors import ConnectSkipErrors
from altprop.passes.cut_regions import CutRegions
from altprop.passes.derive_updates import DeriveUpdates
from altprop.passes.flatten import Flatten
from altprop.passes.insert_error_neurons import InsertErrorNeurons
from altprop.passes.insert_feedback import InsertFeedback
from altprop.passes.linearize_regions import LinearizeRegions
from altprop.rules.base import Rule
from altprop.rules.plans import Network, make_plan
from altprop.rules.resolve import rule_by_glob

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a compilation is asked for; see `altprop.compile`."""

    rules: Mapping[str, Rule | None]
    loss: Loss
    plan: str | WiringPlan | None = None
    regions: str | tuple[str, ...] = "layer"
    optimizer: Optimizer | None = None
    wants: Wants = dataclasses.field(default_factory=Wants)
    devices: int = 1
    machine: Machine | None = None

    def rule_of(self, region: Region) -> Rule | None:
        """Returns the rule of a region: that of the first glob that matches its name; None if it is frozen.

        Raises:
            CompileError: no glob matches.
        """
        return rule_by_glob(self.rules, region)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compilation made.

    Attributes:
        graph: the last graph; its programs are made when they are first asked for.
        history: all graphs, by the pass that made them.
        timings: what took how long.
        observer: how to measure.
        target: tree of fake tensors of the target's form, or None if it is not known yet.
        reads: what forward and loss read that is no tensor; it is fixed in the programs.
        facts: what forward, loss and rules asked of the size of the batch, as far as programs have been made.
    """

    graph: ErrorGraph
    history: Mapping[str, ErrorGraph]
    timings: Timings
    observer: Observer
    target: Any
    reads: tuple[Read, ...] = ()
    facts: BatchFacts = dataclasses.field(default_factory=BatchFacts)

    def graph_at(self, level: str) -> ErrorGraph:
        """Returns the graph as it was when the passes came to a level, one of `altprop.ir.graph.LEVELS`.

        Raises:
            KeyError: they have not come so far.
        """
        for graph in self.history.values():
            if graph.level == level:
                return graph
        raise KeyError(f'no pass came to the level "{level}"')


def compile_graph(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Options,
    target: Any = None,
    captured: CapturedGraph | None = None,
) -> Compiled:
    """Runs the pipeline.

    Args:
        model: the model, in the mode that is wanted.
        args: example positional inputs.
        kwargs: example keyword inputs.
        options: rule, plan, loss and so on.
        target: an example target; without one the loss's usual form is taken.
        captured: the forward, where it was captured before.
    """
    with alone(), quiet(), uncollected(), quick_fakes():
        runner = PassRunner(of_loss_and_rules(options.loss.function, options.rules.values()))
        if captured is None:
            captured = runner.time("capture", lambda: capture(model, args, kwargs))
        runner.facts.learn(captured.facts)
        runner.forms = captured.forms
        with without_code(), runner.noting():
            return _compile(runner, captured, args, options, target)


def _compile(
    runner: PassRunner, captured: CapturedGraph, args: tuple[Any, ...], options: Options, target: Any
) -> Compiled:
    graph = ErrorGraph(captured)
    runner.history["capture"] = graph
    graph = runner.run(CutRegions(options.regions), graph)
    if not options.wants.learners:
        refuse_learners(graph.regions, "this backend", CompileError)
    cut = graph
    plan, weighed = _planned(runner, cut, args, options)
    graph = runner.run(InsertErrorNeurons(plan, tuple(options.rules.values()), weighed), cut)
    alternates = _alternates(graph)
    turns = next((turns for _, turns in alternates.values()), None)
    target = fake_target(captured, options.loss, target)
    wired = runner.run(ConnectSkipErrors(), graph)

    @functools.cache
    def derive() -> DerivedGraph:
        own = _derive(runner, wired, options)
        for one in _programs(options, target, Momenta(other=OTHER, share=turns.share if turns else 1.0)):
            own = runner.run(one, own)
        if turns is None:
            return DerivedGraph(own, own)
        other = _alternate(cut, wired.rules, options, alternates, target, runner)
        return DerivedGraph(_with_alternate(own, other, turns), own)

    def asked() -> Asked:
        return _asked(wired, options, plan, target, alternates)

    made = through_cache(wired, asked, runner, derive)
    graph = made.graph.replace(programs=OnDemand.of(made.graph.programs).within(runner.building()))
    last = tuple(made.history)[-1]
    history = OnDemand.of(made.history).changed(lambda stage, one: graph if stage == last else one)
    reads = (*captured.reads, *loss_reads(options.loss.function), *rule_reads(options.rules.values()))
    observer = Observer(made.own, options.loss, target)
    return Compiled(graph, history, runner.timings, observer, target, reads, runner.facts)


def _planned(
    runner: PassRunner, cut: ErrorGraph, args: tuple[Any, ...], options: Options
) -> tuple[WiringPlan, WiringSearch | None]:
    """The plan, and what was weighed for it; one that is not the caller's own is checked, and told of."""
    batch = next((arg.shape[0] for arg in args if isinstance(arg, torch.Tensor) and arg.dim()), 1)
    plan, weighed = runner.time("plan", lambda: _plan(cut, options, batch))
    if plan is not options.plan:
        check_globs(options.rules, cut.regions, cut.captured)
        refuse_unasked(cut, plan, options.rule_of, options.regions)
        say_unasked(cut, plan, options.regions)
    return plan, weighed


def _asked(wired: ErrorGraph, options: Options, plan: WiringPlan, target: Any, alternates: "Alternates") -> Asked:
    """What all that follows the wiring depends on, beside the captured graph."""
    rules = {str(rule): rule for rule in wired.rules.values() if rule is not None}
    rules |= {f"alternate of {region}": rule for region, (rule, _) in alternates.items()}
    turns = "; ".join(f"{region}: {rule} {turns}" for region, (rule, turns) in alternates.items())
    return Asked(wired.regions, plan, rules, options.loss, target, options.optimizer, options.wants, turns)


def _derive(runner: PassRunner, graph: ErrorGraph, options: Options, suffix: str = "") -> ErrorGraph:
    """Runs the passes from products to updates; again where a rule reads one product more."""
    asked: dict[str, frozenset[str]] = {}
    while True:
        try:
            made = graph
            for one in (LinearizeRegions(asked), InsertFeedback(), DeriveUpdates(options.loss)):
                made = runner.run(one, made, suffix)
            return made
        except MissingProductError as missing:
            rule = str(graph.rules[missing.region])
            asked = asked | {rule: asked.get(rule, frozenset()) | {missing.product}}


Alternates = Mapping[str, tuple[Rule, Alternation]]


def _alternates(graph: ErrorGraph) -> Alternates:
    """The rules that take turns with those of some regions, by region.

    Raises:
        CompileError: they take turns in different ways.
    """
    asked = {name: rule.wiring.alternate(rule) for name, rule in graph.rules.items() if rule is not None}
    found = {name: turns for name, turns in asked.items() if turns is not None}
    if len({turns for _, turns in found.values()}) > 1:
        raise CompileError(
            "the rules of a net that take turns with others must all do so alike: give one set of options."
        )
    return found


def _alternate(
    cut: ErrorGraph,
    rules: Mapping[str, Rule | None],
    options: Options,
    alternates: Alternates,
    target: Any,
    runner: PassRunner,
) -> ErrorGraph:
    """Compiles the same regions by the rules that take turns with the net's own, each on its own plan."""
    own = {**rules, **{name: rule for name, (rule, _) in alternates.items()}}
    other = make_plan(Network.of(cut.regions), lambda region: own[region.name], None)
    turns = next(turns for _, turns in alternates.values())
    graph = runner.run(InsertErrorNeurons(other, tuple(own.values())), cut, SUFFIX)
    graph = _derive(runner, runner.run(ConnectSkipErrors(), graph, SUFFIX), options, SUFFIX)
    for one in _programs(options, target, Momenta(own=OTHER, is_mixed_in=turns.share != 1)):
        graph = runner.run(one, graph, SUFFIX)
    return graph


def _with_alternate(graph: ErrorGraph, other: ErrorGraph, turns: Alternation) -> ErrorGraph:
    programs = OnDemand.of(graph.programs).joined(OnDemand.of(other.programs), SUFFIX)
    return graph.replace(
        programs=programs,
        feedback={**other.feedback, **graph.feedback},
        alternation=dataclasses.replace(turns, exact=frozenset(exact_targets(other))),
    )


def _plan(graph: ErrorGraph, options: Options, batch: int) -> tuple[WiringPlan, WiringSearch | None]:
    """Returns the plan, and the search that found it where there was one."""
    if isinstance(options.plan, WiringPlan):
        return options.plan, None
    network = Network.of(graph.regions)
    if options.plan != "auto":
        return make_plan(network, options.rule_of, options.plan), None
    search = search_wirings(
        graph.captured,
        network,
        options.rule_of,
        devices=options.devices,
        batch=batch,
        machine=options.machine,
    )
    plan = search.best.plan
    assert plan is not None
    return plan, search


def _programs(options: Options, target: Any, momenta: Momenta) -> Sequence[Pass]:
    """The passes that make flat programs of a derived graph."""
    passes: list[Pass] = [Flatten(options.loss, target, forward_first=options.wants.least_memory)]
    if options.optimizer is not None:
        passes.append(AddOptimizer(options.optimizer, options.wants.tensor_scalars, momenta))
    wants = options.wants
    cleanup = Cleanup(
        fuse=wants.fused_updates and (options.optimizer is None or options.optimizer.fused),
        reuse=wants.reused_memory,
        kernels=wants.own_kernels,
        opaque=wants.compiled,
        channels_last=wants.channels_last,
        least=wants.least_memory,
    )
    return [*passes, cleanup]


def fake_target(captured: CapturedGraph, loss: Loss, target: Any) -> Any:
    """A target of fake tensors: like the example, or of the loss's usual form."""
    outputs = [captured.value(name) for name in captured.outputs if name]
    floating = [value for value in outputs if value.is_floating_point()]
    if target is None:
        with captured.fake_mode:
            return loss.default_target(floating[0]) if floating else None

    def fake(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        sizes = [captured.batch if d == 0 else s for d, s in enumerate(leaf.shape)]
        with captured.fake_mode:
            return torch.empty(sizes, dtype=leaf.dtype, device=leaf.device)

    return pytree.tree_map(fake, target)
