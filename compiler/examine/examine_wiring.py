"""What `altprop.examine` says of a rule and a plan: whether they fit, and how feedback starts where not at random."""

from collections import Counter
from collections.abc import Mapping

from altprop.compiler.examine.judge_cut import Wanted
from altprop.compiler.examine.unasked import refuse_unasked
from altprop.compiler.globs import check_globs
from altprop.ir.graph import ErrorGraph
from altprop.ir.plan import WiringPlan
from altprop.ir.region import Region
from altprop.passes.connect_skip_errors import ConnectSkipErrors
from altprop.passes.insert_error_neurons import InsertErrorNeurons
from altprop.passes.insert_feedback import InsertFeedback
from altprop.passes.linearize_regions import LinearizeRegions
from altprop.rules.base import Rule
from altprop.rules.beside_plan import check_beside_plan
from altprop.rules.plans import Network, make_plan
from altprop.rules.resolve import rule_by_glob


def wire(
    graph: ErrorGraph, rules: Mapping[str, Rule | None], plan: str | WiringPlan | None, wanted: Wanted = "layer"
) -> ErrorGraph:
    """Puts error neurons, connections and feedback on a graph that is cut.

    Args:
        graph: at level "cut".
        rules: by globs over region names.
        plan: as for `altprop.compile`; "auto" stands for the rule's own.
        wanted: the regions that were asked for.

    Raises:
        CompileError: the rule or the plan does not fit.
    """

    def rule_of(region: Region) -> Rule | None:
        return rule_by_glob(rules, region)

    name = None if plan == "auto" else plan
    if isinstance(name, WiringPlan):
        made = name
        check_beside_plan(rules, made)
    else:
        made = make_plan(Network.of(graph.regions), rule_of, name)
        check_globs(rules, graph.regions, graph.captured)
        refuse_unasked(graph, made, rule_of, wanted)
    given = tuple(rules.values())
    for one in (InsertErrorNeurons(made, given), ConnectSkipErrors(), LinearizeRegions(), InsertFeedback()):
        graph = one(graph).graph
    return graph


def start_notes(graph: ErrorGraph) -> list[str]:
    """Returns a sentence for each way in which feedback starts otherwise than at random."""
    starts = Counter(graph.start_of(c.name) for c in graph.connections)
    of = len(graph.connections)
    return [f"feedback on {count} of {of} connections {start}" for start, count in starts.items() if start]
