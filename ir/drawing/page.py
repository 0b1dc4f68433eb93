"""A drawing as one HTML page that needs nothing from the network."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from altprop.ir.graph import ErrorGraph
from altprop.ir.plan_schema import json_text

_STYLE = """
  body { font: 15px/1.45 system-ui, sans-serif; color: #1f2430; margin: 2rem auto; max-width: 75rem }
  body { padding: 0 1rem }
  svg { max-width: 100%; height: auto }
  table { border-collapse: collapse; margin: 1rem 0; font-size: 13px }
  th, td { border-bottom: 1px solid #d5dae3; padding: 0.3rem 0.8rem; text-align: left; vertical-align: top }
  th { background: #f6f7f9 }
  pre { background: #f6f7f9; padding: 1rem; overflow-x: auto; font-size: 12px }
"""
_LEGEND = (
    ("Boxes and dark arrows", "the forward path: each box is a region, its row stands where it runs."),
    ("Circles", "error neurons, with the rule that fills them."),
    (
        "Arcs",
        "skip-error connections; the colour says the kind of feedback; learned is solid, fixed dashed.",
    ),
    ("Thick arrow", "the gradient of the loss at the output."),
)


def to_page(graph: ErrorGraph, svg: str, inspector: str = "") -> str:
    """Returns the page: title, what can be asked, picture, legend, tables of the plan, and the text of the graph.

    Args:
        graph: the graph.
        svg: its picture.
        inspector: the part that can be asked; see `inspector.py`.
    """
    plan = f", plan {graph.plan.name}" if graph.plan is not None else ""
    title = escape(f"altprop: {graph.level} graph{plan}")
    legend = "".join(f"<li><b>{escape(what)}</b>: {escape(means)}</li>" for what, means in _LEGEND)
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        inspector,
        _bare(svg),
        f"<h2>Legend</h2><ul>{legend}</ul>",
        *_tables(graph),
        f"<h2>Text</h2><pre>{escape(str(graph))}</pre>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _bare(svg: str) -> str:
    """The svg element alone: no XML header, no document type, no metadata."""
    element = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)


def _tables(graph: ErrorGraph) -> Iterable[str]:
    if graph.plan is None:
        return
    yield "<h2>Regions</h2>"
    rows = [(r.name, r.rule, "yes" if r.error_neurons else "no", r.device or "") for r in graph.plan.regions]
    yield _table(("region", "rule", "error neurons", "device"), rows)
    yield "<h2>Connections</h2>"
    links = [
        (
            c.source,
            c.target,
            c.feedback.kind,
            json_text(dict(c.feedback.options)),
            "yes" if c.feedback.learning else "no",
            graph.start_of(c.name),
        )
        for c in graph.connections or graph.plan.connections
    ]
    yield _table(("from", "to", "feedback", "options", "learned", "start"), links)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])
