"""Takes what follows the wiring from files, where an earlier compilation left it there."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping

from altprop.compiler.cache.key import Asked
from altprop.compiler.cache.record import RecordError
from altprop.compiler.cache.store import Store, open_store
from altprop.compiler.run_passes import PassRunner
from altprop.ir.graph import ErrorGraph
from altprop.ir.on_demand import OnDemand

log = logging.getLogger("altprop.cache")


@dataclasses.dataclass(frozen=True)
class DerivedGraph:
    """A derived graph.

    Attributes:
        graph: all of it.
        own: the same without the programs of other rules that take turns with its own.
    """

    graph: ErrorGraph
    own: ErrorGraph


@dataclasses.dataclass(frozen=True)
class Made:
    """A derived graph, from files or not, and the graphs of all passes by name."""

    graph: ErrorGraph
    own: ErrorGraph
    history: Mapping[str, ErrorGraph]


def through_cache(
    wired: ErrorGraph,
    asked: Callable[[], Asked],
    runner: PassRunner,
    derive: Callable[[], DerivedGraph],
) -> Made:
    """Returns the derived graph of a wired one.

    Args:
        wired: the graph behind the last pass that always runs.
        asked: returns what the compilation is asked for.
        runner: of the compilation; its history grows by what is derived.
        derive: derives; also later, when something is asked for that is in no file.
    """
    history = runner.history
    with runner.timings.stage("cache"):
        store = open_store(wired.captured, asked, runner.facts)
        made = None if store is None else _read(store, wired, history, runner.later(derive))
    if made is not None:
        return made
    before = len(history)
    derived = derive()
    stages = tuple(history)[before:]
    if store is None:
        return Made(derived.graph, derived.own, history)
    store.keep(derived.graph, derived.own, stages)
    graph = derived.graph.replace(programs=store.kept(derived.graph.programs))
    return Made(graph, derived.own, history)


def _read(
    store: Store, wired: ErrorGraph, history: dict[str, ErrorGraph], later: Callable[[], DerivedGraph]
) -> Made | None:
    record = store.find()
    if record is None or not record.stages:
        return None
    try:
        graph = store.graph(wired, record, lambda: later().graph)
    except RecordError as error:
        log.warning("cache: left alone: the record of %s: %s", store.key[:12], error)
        return None
    own = {name: one for name, one in graph.feedback.items() if name not in record.others}

    def after(stage: str) -> ErrorGraph:
        later()
        return history[stage]

    makers = {stage: (lambda stage=stage: after(stage)) for stage in record.stages[:-1]}
    known = OnDemand.of({**history, record.stages[-1]: graph})
    return Made(graph, graph.replace(feedback=own), _in_order(known, OnDemand(makers), record.stages))


def _in_order(
    known: OnDemand[ErrorGraph], others: OnDemand[ErrorGraph], stages: tuple[str, ...]
) -> OnDemand[ErrorGraph]:
    joined = known.joined(others)
    names = [*(name for name in known if name not in stages), *stages]
    return OnDemand({name: functools.partial(joined.__getitem__, name) for name in names})
