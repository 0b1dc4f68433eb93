"""Finds the submodules that a group of nodes may be cut around as a whole."""

import fnmatch
from collections import defaultdict
from collections.abc import Callable, Sequence

from torch import fx

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import CompileError
from altprop.passes.cut.operator_kinds import mixings
from altprop.passes.cut.roles import Roles

_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


def find_blocks(captured: CapturedGraph, roles: Roles) -> tuple[str, ...]:
    """Returns the calls of repeated submodules, outermost first: the natural blocks of a network.

    A block is a module whose class occurs at least twice and that holds at least two mixing operators with
    parameters; containers do not count.
    """
    layers: dict[str, int] = defaultdict(int)
    kinds: dict[str, str] = {}
    for name in roles.main:
        node = captured.node(name)
        for call in captured.modules.get(name, ()):
            kinds[call.path] = call.kind
            layers[call.path] += mixings(node) if roles.own_parameters(node) else 0
    candidates = [p for p, kind in kinds.items() if layers[p] >= 2 and kind.split(".")[-1] not in _CONTAINERS]
    repeated = [p for p in candidates if sum(kinds[q] == kinds[p] for q in candidates) >= 2]
    return tuple(p for p in repeated if not any(_inside(p, q) for q in repeated if q != p))


def find_recurrent(captured: CapturedGraph) -> tuple[str, ...]:
    """Returns the calls of recurrent modules: each is one region, with all of its layers and steps."""
    calls = [call for calls in captured.modules.values() for call in calls]
    return tuple(dict.fromkeys(call.path for call in calls if call.kind.startswith("torch.nn.modules.rnn.")))


def block_of(captured: CapturedGraph, blocks: Sequence[str]) -> Callable[[fx.Node], str]:
    """Returns the function from a node to the block that it belongs to, or `""`."""
    chosen = set(blocks)

    def find(node: fx.Node) -> str:
        calls = captured.modules.get(node.name, ())
        return next((call.path for call in calls if call.path in chosen), "")

    return find


def match_globs(captured: CapturedGraph, globs: Sequence[str]) -> tuple[str, ...]:
    """Returns the module calls that match one of the user's globs, outermost only.

    Raises:
        CompileError: a glob matches no module that computes anything.
    """
    paths = list(dict.fromkeys(call.path for calls in captured.modules.values() for call in calls))
    found: list[str] = []
    for glob in globs:
        matching = [path for path in paths if fnmatch.fnmatchcase(path, glob)]
        if not matching:
            raise CompileError(
                f'regions: the glob "{glob}" matches no module that the forward calls; '
                f"there are {', '.join(paths[:8])}{' and more' if len(paths) > 8 else ''}."
            )
        found += matching
    return tuple(path for path in dict.fromkeys(found) if not any(_inside(path, other) for other in found))


def _inside(path: str, other: str) -> bool:
    return path != other and path.startswith(other + ".")
