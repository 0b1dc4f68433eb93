"""One HTML file on a compilation, to attach to a question: what was asked, what came of it, on what machine."""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from torch import nn

import altprop
from altprop.ir.drawing.picture_files import render
from altprop.ir.errors import CompileError
from altprop.machine_facts import facts

_STYLE = """
  body { font: 15px/1.45 system-ui, sans-serif; color: #1f2430; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
  svg { max-width: 100%; height: auto }
  td, th { padding: 0.15rem 1rem 0.15rem 0; text-align: left; vertical-align: top }
  pre { background: #f6f7f9; padding: 1rem; overflow-x: auto; font-size: 12px }
  .refused { border-left: 4px solid #b5432a; padding: 0.5rem 1rem; background: #fdece6 }
"""
_LONGEST = 20_000


def write_report(
    path: Path, model: nn.Module, example_inputs: tuple[Any, ...], options: Mapping[str, Any], asked: str = ""
) -> bool:
    """Compiles a model and writes what there is to say, whether it compiles or not.

    Args:
        path: the file, which ends in `.html`.
        model: the model.
        example_inputs: as for `altprop.compile`.
        options: for `altprop.compile`.
        asked: how it was asked for, such as a command line.

    Returns:
        Whether the model compiles.
    """
    net, refusal = None, ""
    try:
        net = altprop.compile(model, example_inputs=example_inputs, **options)
    except CompileError as error:
        refusal = str(error)
    parts = _asked(model, example_inputs, options, asked)
    parts += _refused(model, example_inputs, options, refusal) if net is None else _compiled(net)
    title = escape(f"altprop: report on {type(model).__name__}")
    head = f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    page = [f"{head}<style>{_STYLE}</style></head><body><h1>{title}</h1>", *parts, "</body></html>"]
    path.write_text("\n".join(page) + "\n", "utf-8")
    return net is not None


def _asked(model: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any], asked: str) -> list[str]:
    shapes = [f"{str(one.dtype).removeprefix('torch.')}{tuple(one.shape)}" for one in inputs]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = {
        "asked by": asked,
        "inputs": ", ".join(shapes),
        "options": ", ".join(f"{key}={value!r}" for key, value in options.items()),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}, {trainable:,} of them learn",
    }
    return [
        "<h2>Asked</h2>",
        _table({key: value for key, value in rows.items() if value}),
        "<h2>Machine</h2>",
        _table(facts()),
        _details("Model", str(model)),
    ]


def _compiled(net: "altprop.LocalNet") -> list[str]:
    svg = render(net.graph, "svg").decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return [
        "<h2>It compiles</h2>",
        f"<p>In {sum(net.seconds.values()):.1f} seconds.</p>",
        "<h3>Passes</h3>",
        _text(str(net.history)),
        "<h3>What moves each parameter</h3>",
        _text(str(net.explain())),
        "<h3>Pathway</h3>",
        svg,
        _details("Plan", str(net.plan)),
        _details("Graph", str(net.graph)),
    ]


def _refused(model: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any], refusal: str) -> list[str]:
    wanted = {key: options[key] for key in ("rule", "plan", "regions") if key in options}
    try:
        found = str(altprop.examine(model, inputs, **wanted))
    except CompileError as error:
        found = str(error)
    return [
        "<h2>It is refused</h2>",
        f'<p class="refused">{escape(refusal)}</p>',
        "<h3>altprop.examine</h3>",
        _text(found),
    ]


def _table(rows: Mapping[str, str]) -> str:
    lines = (f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{''.join(lines)}</table>"


def _details(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{_text(text)}</details>"


def _text(text: str) -> str:
    rest = f"\n... {len(text) - _LONGEST:,} characters more" if len(text) > _LONGEST else ""
    return f"<pre>{escape(text[:_LONGEST])}{rest}</pre>"
