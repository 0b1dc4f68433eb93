"""A timeline as a Gantt chart: one row a device, one colour a kind of task, transfers as thin lines."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from altprop.ir.timeline import Timeline

COLOURS = {
    "F": "#4477aa",
    "M": "#aa3377",
    "E": "#ee6677",
    "U": "#228833",
    "STEP": "#ccbb44",
    "SEND": "#bbbbbb",
    "RECV": "#dddddd",
}
NAMES = {"F": "forward", "M": "message", "E": "error", "U": "update", "STEP": "optimizer", "SEND": "send"}
_MOST_LINES = 2000


def draw_gantt(timeline: Timeline, path: Path) -> None:
    """Writes the chart of a timeline to a file that matplotlib knows by its suffix."""
    rows = len(timeline.devices)
    figure = Figure(figsize=(12, 1.2 + 0.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        for device in range(rows):
            mine = [e for e in timeline.events if e.kind == kind and e.device == device]
            bars = [(e.start * 1e3, (e.end - e.start) * 1e3) for e in mine]
            axes.broken_barh(bars, (device - 0.35, 0.7), facecolors=colour, edgecolor="white", linewidth=0.2)
    for transfer in timeline.transfers[:_MOST_LINES]:
        times = [transfer.start * 1e3, transfer.end * 1e3]
        axes.plot(times, [transfer.source, transfer.target], color="#555555", linewidth=0.4, alpha=0.6)
    axes.set_yticks(range(rows), [f"{d} {name}" for d, name in enumerate(timeline.devices)])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(f"{timeline.name}: {timeline.makespan * 1e3:.3g} ms a step", loc="left")
    kinds = {e.kind for e in timeline.events}
    shown = [Patch(color=COLOURS[kind], label=name) for kind, name in NAMES.items() if kind in kinds]
    axes.legend(handles=shown, ncols=len(shown) or 1, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    with mpl.rc_context({"svg.hashsalt": "altprop"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
