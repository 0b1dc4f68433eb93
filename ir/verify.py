"""The laws of each level of the error-pathway graph, as a table.

The verifier collects all violations, then raises once, with each marked inside the printed graph.
"""

from collections.abc import Callable, Iterator

from altprop.ir.errors import VerifyError
from altprop.ir.graph import LEVELS, ErrorGraph

Law = Callable[[ErrorGraph], Iterator[str]]


def verify(graph: ErrorGraph, level: str, before: str = "", after: str = "") -> None:
    """Checks all laws up to `level`.

    Args:
        graph: the graph.
        level: one of `LEVELS`; the graph must have come at least as far.
        before: name of the pass that is about to run, for the message.
        after: name of the pass that ran, for the message.

    Raises:
        VerifyError: lists every violation.
    """
    when = f"before {before}" if before else f"after {after}"
    if not graph.at_least(level):
        raise VerifyError(f'{when}: the graph is at level "{graph.level}", not yet at "{level}".')
    problems = [p for lvl in LEVELS[: LEVELS.index(level) + 1] for law in LAWS[lvl] for p in law(graph)]
    if problems:
        marked = "\n".join(f"  ^ {problem}" for problem in problems)
        raise VerifyError(f"{when}: the graph breaks {len(problems)} law(s):\n{marked}\n\n{graph}")


def _values_have_fakes(graph: ErrorGraph) -> Iterator[str]:
    for node in graph.captured.graph.nodes:
        if node.op == "call_function" and "val" not in node.meta:
            yield f"{node.name}: has no fake value"


def _outputs_exist(graph: ErrorGraph) -> Iterator[str]:
    for name in (*graph.captured.outputs, *graph.captured.buffer_updates):
        if name and name not in graph.captured.nodes:
            yield f"{name}: is returned but never computed"


def _names_are_unique(graph: ErrorGraph) -> Iterator[str]:
    names = [region.name for region in graph.regions]
    for name in {n for n in names if names.count(n) > 1}:
        yield f"region {name}: the name stands twice"


def _nodes_belong_once(graph: ErrorGraph) -> Iterator[str]:
    owner: dict[str, str] = {}
    for region in graph.regions:
        for node in region.nodes:
            if node in owner:
                yield f"{node}: belongs to both {owner[node]} and {region.name}"
            owner[node] = region.name


def _regions_run_in_order(graph: ErrorGraph) -> Iterator[str]:
    made: set[str] = set()
    for region in graph.regions:
        for value in region.sources:
            if value not in made:
                yield f"region {region.name}: reads {value} before it is made"
        made |= set(region.outputs)


def _parameters_are_covered(graph: ErrorGraph) -> Iterator[str]:
    covered = {name for region in graph.regions for name in region.parameters}
    for name in sorted(graph.captured.trainable - covered):
        yield f"parameter {name}: no region moves it"


def _plan_fits(graph: ErrorGraph) -> Iterator[str]:
    if graph.plan is None:
        yield "there is no wiring plan"
        return
    heard = {r.name for r in graph.regions if r.is_output or (r.name in graph.neurons and graph.neurons[r.name].silent)}
    yield from graph.plan.problems([r.name for r in graph.regions], heard)
    for region in graph.plan.regions:
        if region.error_neurons and not region.is_frozen and region.name not in graph.neurons:
            yield f"region {region.name}: the plan wants error neurons, the graph has none"


def _connections_have_ends(graph: ErrorGraph) -> Iterator[str]:
    for c in graph.connections:
        for end in (c.source, c.target):
            if end not in graph.neurons:
                yield f"connection {c.name}: {end} has no error neurons"


def _errors_are_sent_in_order(graph: ErrorGraph) -> Iterator[str]:
    pending = {c.target for c in graph.connections}
    outputs = {region.name for region in graph.regions if region.is_output}
    known = {name for name in graph.neurons if name not in pending} | outputs
    for c in graph.connections:
        if c.source not in known and any(d.target == c.source for d in graph.connections[_index(graph, c) :]):
            yield f"connection {c.name}: is sent before the error of {c.source} is complete"
        known.add(c.target)


def _index(graph: ErrorGraph, connection: object) -> int:
    return next(i for i, c in enumerate(graph.connections) if c is connection)


def _regions_have_local_graphs(graph: ErrorGraph) -> Iterator[str]:
    for region in graph.regions:
        if region.name not in graph.locals:
            yield f"region {region.name}: has no local graph"


def _feedback_has_a_connection(graph: ErrorGraph) -> Iterator[str]:
    names = {c.name for c in graph.connections}
    for parameter in graph.feedback.values():
        if parameter.region and parameter.region not in graph.neurons:
            yield f"feedback {parameter.name}: there is no region {parameter.region} with error neurons"
        if not parameter.region and parameter.connection not in names:
            yield f"feedback {parameter.name}: there is no connection {parameter.connection}"


def _every_parameter_has_an_update(graph: ErrorGraph) -> Iterator[str]:
    frozen = {r.name for r in graph.plan.regions if r.is_frozen} if graph.plan else set()
    owners: dict[str, set[str]] = {}
    for region in graph.regions:
        for name in region.parameters:
            owners.setdefault(name, set()).add(region.name)
    moved = {name for update in graph.updates.values() for name in update.gradients}
    for name, regions in owners.items():
        if name not in moved and not regions <= frozen:
            yield f"parameter {name}: has no update, and the plan does not freeze it"


LAWS: dict[str, tuple[Law, ...]] = {
    "captured": (_values_have_fakes, _outputs_exist),
    "cut": (_names_are_unique, _nodes_belong_once, _regions_run_in_order, _parameters_are_covered),
    "neurons": (_plan_fits,),
    "wired": (_connections_have_ends, _errors_are_sent_in_order),
    "linearized": (_regions_have_local_graphs,),
    "feedback": (_feedback_has_a_connection,),
    "derived": (_every_parameter_has_an_update,),
}
