"""`altprop rules`: the learning rules there are."""

import altprop
from altprop.command.options import Debug
from altprop.command.screen import results


def rules(debug: Debug = False) -> None:
    """List the learning rules, with one line on each.

    Give one to the other commands with --rule; options go into parentheses: --rule 'reclra(beta=0.05)'.
    """
    lines = altprop.rules.available()
    width = max(len(name) for name in lines)
    results.print("\n".join(f"{name:{width}}  {line}" for name, line in lines.items()))
