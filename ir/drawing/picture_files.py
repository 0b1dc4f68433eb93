"""Files of drawings; the suffix chooses the format."""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from altprop.ir.drawing.as_networkx import to_networkx
from altprop.ir.drawing.dot import to_dot
from altprop.ir.drawing.inspector import Beside, to_inspector
from altprop.ir.drawing.page import to_page
from altprop.ir.errors import ExportError
from altprop.ir.graph import ErrorGraph

_MOST_PIXELS = 12000


def draw(graph: ErrorGraph, path: Path, beside: Beside | None = None) -> Path:
    """Draws a graph at any level; the suffix chooses svg, png, pdf, dot, graphml or html. Returns the path.

    Args:
        graph: the graph.
        path: the file.
        beside: what a page shows beside the graph; files of other formats leave it out.

    Raises:
        ExportError: unknown suffix, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ExportError(f'{path}: a drawing ends in {", ".join(_FORMATS)}, not in "{path.suffix}".')
    data = _page(graph, beside or Beside()) if suffix == ".html" else _FORMATS[suffix](graph)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}.") from error
    return path


def render(graph: ErrorGraph, form: str) -> bytes:
    """Returns the picture as "svg", "png" or "pdf"; the same graph gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from altprop.ir.drawing.figure import make_figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "altprop",
        "font.family": "DejaVu Sans",
        "pdf.fonttype": 42,
    }
    dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    buffer = io.BytesIO()
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = make_figure(to_networkx(graph))
        FigureCanvasAgg(figure)
        dpi = min(200.0, _MOST_PIXELS / max(figure.get_size_inches()))
        figure.savefig(buffer, format=form, dpi=dpi, metadata=dates[form])
    return buffer.getvalue()


def _page(graph: ErrorGraph, beside: Beside) -> bytes:
    return to_page(graph, render(graph, "svg").decode(), to_inspector(graph, beside)).encode()


def _graphml(graph: ErrorGraph) -> bytes:
    return ("\n".join(nx.generate_graphml(to_networkx(graph))) + "\n").encode()


_FORMATS: Mapping[str, Callable[[ErrorGraph], bytes]] = {
    ".svg": lambda graph: render(graph, "svg"),
    ".png": lambda graph: render(graph, "png"),
    ".pdf": lambda graph: render(graph, "pdf"),
    ".dot": lambda graph: to_dot(graph).encode(),
    ".graphml": _graphml,
    ".html": lambda graph: _page(graph, Beside()),
}


def draw_beside(graph: ErrorGraph, path: Path, history: Any, measurement: Any, schedule: Any) -> Path:
    """Draws a graph; a page shows the rest beside it, as far as it is there."""
    return draw(graph, path, Beside(history, measurement, schedule))
