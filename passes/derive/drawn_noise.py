"""Lets a rule draw: its random numbers become inputs of the program, from the net's own stream.

Before and after, for a rule that adds `torch.randn_like(h)`:

    randn_like = aten.randn_like(h)                take noise_0 = noise fc1:drawn:0
    add = aten.add(h, randn_like)                  add = aten.add(h, noise_0)

So a step draws nothing from torch's global stream, and a net that is loaded goes on as the saved one would have.
"""

from typing import Any

import torch
from torch import fx

from altprop.ir.errors import RuleError
from altprop.ir.operators import is_random, short_name
from altprop.ir.updates import Value

_NORMAL = (torch.ops.aten.randn_like.default, torch.ops.aten.randn.default)


def take_noise(graph: fx.Graph, region: str, rule: Any) -> dict[str, Value]:
    """Makes placeholders of what a traced rule draws.

    Args:
        graph: the trace; it is changed.
        region: its region.
        rule: its rule.

    Returns:
        Placeholder name to the noise that it takes.

    Raises:
        RuleError: it draws something else than standard normal numbers.
    """
    drawn = [node for node in graph.nodes if node.op == "call_function" and is_random(node)]
    for node in [node for node in drawn if not node.users]:  # of the forward, whose masks are kept; torch keeps it, too
        drawn.remove(node)
        graph.erase_node(node)
    taken: dict[str, Value] = {}
    for number, node in enumerate(drawn):
        value = node.meta["val"]
        if node.target not in _NORMAL or not value.is_floating_point():
            raise RuleError(
                f'the rule "{rule}" draws by {short_name(node)} on region "{region}": a rule draws by torch.randn_like '
                "or torch.randn, which a net takes from a stream of its own; make other distributions of these."
            )
        last = [one for one in graph.nodes if one.op == "placeholder"][-1]
        with graph.inserting_after(last):
            made = graph.placeholder("noise")
        made.meta["val"] = value
        node.replace_all_uses_with(made)
        graph.erase_node(node)
        taken[made.name] = ("noise", f"{region}:drawn:{number}")
    return taken
