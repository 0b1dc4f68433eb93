"""The picture of an error-pathway graph: matplotlib objects, made without pyplot and its global state."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from altprop.ir.drawing import style
from altprop.ir.drawing.arrange import Layout, Point, place
from altprop.ir.drawing.as_networkx import Network, error_name
from altprop.ir.drawing.canvas import Canvas, bend, inches, shorten, through
from altprop.ir.drawing.legend import Legend

_RADIUS = 0.13
_BOX_HEIGHT = 0.4
_LEFT, _RIGHT, _BOTTOM = 0.35, 0.35, 0.4


def make_figure(network: Network) -> Figure:
    """Returns the picture of a network that `to_networkx` made."""
    return _Drawer(network).draw()


class _Drawer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: dict[str, Mapping[str, Any]] = dict(network.nodes(data=True))
        boxes = {name: values for name, values in self.nodes.items() if values["kind"] in style.BOXES}
        self.row_height = 0.7 if len(boxes) <= 24 else 0.58
        self.size = 9.0
        self.texts = {name: _texts(values) for name, values in boxes.items()}
        self.widths = {name: self._width(*texts) for name, texts in self.texts.items()}
        errors = [values for values in self.nodes.values() if values["kind"] == "error"]
        gap = 0.5 + max((inches(shorten(values["rule"], 30), self.size - 2) for values in errors), default=0.0)
        self.layout: Layout = place(network, self.widths, self.row_height, gap)
        self.errors = {values["region"]: (self.layout.lane, self._y(values["region"])) for values in errors}
        self.connections = [v for _, _, v in network.edges(data=True) if v["kind"] == "skip-error"]
        self.colours = style.colour_of(style.feedback_kinds(network))

    def draw(self) -> Figure:
        """Makes the figure; things are drawn from the back to the front."""
        title = self._title()
        reach = max([0.45, *(0.78 * self._bulge(a, b) for a, b, _ in self._arcs())])
        width = max(self.layout.lane + reach + _RIGHT, _LEFT + inches(title, 11, "bold") + _RIGHT, 5.0)
        legend = Legend(self._entries(), self.size - 1, width - _LEFT - _RIGHT)
        top = 0.62 + legend.height + 0.3
        self.canvas = Canvas(width, top + self.layout.end[1] + _BOTTOM, top)
        self.canvas.text((_LEFT, 0.35 - top), title, 11, weight="bold", ha="left", gid="title")
        legend.draw(self.canvas, (_LEFT, 0.68 - top))
        self._bands()
        for (source, target), points in self.layout.routes.items():
            self._forward(source, target, points)
        for name in self.texts:
            self._box(name)
        for region, point in self.errors.items():
            self._error(region, point)
        for source, target, values in self._arcs():
            self._arc(source, target, values)
        self._end()
        return self.canvas.figure

    def _title(self) -> str:
        regions = sum(values["kind"] == "region" for values in self.nodes.values())
        counts = [f"{regions} region{'s' * (regions != 1)}"] if regions else []
        arcs = len(self.connections)
        counts += [f"{arcs} connection{'s' * (arcs != 1)}"] if arcs else []
        plan = f", plan {self.network.graph['plan']}" if self.network.graph["plan"] else ""
        return f"{self.network.graph['level']} graph{plan}" + (f": {', '.join(counts)}" if counts else "")

    def _entries(self) -> list[style.Entry]:
        entries = [style.Entry("forward", style.FORWARD, 1.1)]
        if self.errors:
            entries.append(style.Entry("error neurons", style.ERROR_EDGE, 1.2, circle=True))
            entries.append(style.Entry("gradient of the loss", style.ERROR_EDGE, 2.0))
        kinds = {(v["feedback"], v["learning"], v.get("start", "")) for v in self.connections}
        for kind, learning, start in sorted(kinds):
            label = f"{kind} feedback, {'learned' if learning else 'fixed'}{', ' + start if start else ''}"
            entries.append(style.Entry(label, self.colours[kind], 1.3, dashed=not learning))
        return entries

    def _arcs(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        edges = [edge for edge in self.network.edges(data=True) if edge[2]["kind"] == "skip-error"]
        return [(self.nodes[a]["region"], self.nodes[b]["region"], values) for a, b, values in edges]

    def _width(self, first: str, second: str) -> float:
        return max(inches(first, self.size, "bold"), inches(second, self.size - 2)) + 0.26

    def _y(self, name: str) -> float:
        return self.layout.boxes[name][1]

    def _bands(self) -> None:
        """A band behind the rows of each block, with its name along the left side."""
        blocks: dict[str, list[float]] = {}
        for name, values in self.nodes.items():
            if values.get("block"):
                blocks.setdefault(values["block"], []).append(self._y(name))
        for block, ys in blocks.items():
            top, bottom = min(ys) - self.row_height * 0.46, max(ys) + self.row_height * 0.46
            width = self.layout.lane - 0.35
            self.canvas.band((0.1, top), width, bottom - top, fc=style.BAND, ec="#d5dae3", lw=0.6, gid=f"block {block}")
            label = shorten(block, max(int((bottom - top) / 0.07), 4))
            self.canvas.text((0.21, (top + bottom) / 2), label, self.size - 2, rotation=90, color=style.NOTE)

    def _forward(self, source: str, target: str, points: tuple[Point, ...]) -> None:
        """An arrow from box to box; beside the boxes between it runs straight down."""
        half = _BOX_HEIGHT / 2
        stations = [(points[0][0], points[0][1] + half)]
        for x, y in points[1:-1]:
            stations += [(x, y - half), (x, y + half)]
        stations.append((points[-1][0], points[-1][1] - half))
        self.canvas.arrow(through(stations), style.FORWARD, 1.1, f"forward {source} -> {target}")

    def _box(self, name: str) -> None:
        (x, y), (first, second), values = self.layout.boxes[name], self.texts[name], self.nodes[name]
        fill, edge = style.box_colours(values)
        width = 2.2 if values.get("output") else 1.0
        gid = f"{values['kind']} {values['label']}"
        self.canvas.box((x, y), self.widths[name], _BOX_HEIGHT, fc=fill, ec=edge, lw=width, gid=gid)
        self.canvas.text((x, y - 0.075), first, self.size, weight="bold")
        self.canvas.text((x, y + 0.1), second, self.size - 2, color=style.NOTE)

    def _error(self, region: str, point: Point) -> None:
        x, y = point
        edge = self.layout.boxes[region][0] + self.widths[region] / 2
        self.canvas.line((edge, y), (x - _RADIUS, y), color="#8a94a6", lw=0.8, ls=":")
        rule = shorten(self.nodes[error_name(region)]["rule"], 30)
        self.canvas.text((x - _RADIUS - 0.07, y - 0.075), rule, self.size - 2, ha="right", color=style.ERROR_EDGE)
        self.canvas.circle(point, _RADIUS, fc=style.ERROR_FILL, ec=style.ERROR_EDGE, lw=1.2, gid=f"error {region}")
        self.canvas.text(point, "e", self.size, style="italic", color=style.ERROR_EDGE)

    def _bulge(self, source: str, target: str) -> float:
        """How far the control points of an arc stand off the lane: farther, the more rows it spans."""
        rows = abs(self._y(source) - self._y(target)) / self.row_height
        return 0.2 + 0.45 * float(rows) ** 0.62

    def _arc(self, source: str, target: str, values: Mapping[str, Any]) -> None:
        """Errors leave a circle on the side of the target, and arrive on the side of the source."""
        (x0, y0), (x1, y1) = self.errors[source], self.errors[target]
        bulge, up = self._bulge(source, target), 1 if y1 < y0 else -1
        across, along = 0.92 * _RADIUS, 0.4 * _RADIUS * up
        start, stop = (x0 + across, y0 - along), (x1 + across, y1 + along)
        path = bend(start, (start[0] + bulge, start[1]), (stop[0] + bulge, stop[1]), stop)
        colour, gid = self.colours[values["feedback"]], f"skip-error {values['name']}"
        width = 1.3 if len(self.connections) <= 30 else 0.9
        self.canvas.arrow(path, colour, width, gid, dashed=not values["learning"], zorder=2.5)

    def _end(self) -> None:
        """The loss under the lane of error neurons, or the output under the region that returns it."""
        if "loss()" in self.nodes:
            self._loss(self.layout.end)
            return
        sources = [self.layout.boxes[source] for source, _ in self.network.in_edges("output()")]
        centre = (sources[-1][0] if sources else self.layout.end[0], self.layout.end[1])
        self.canvas.box(centre, 0.66, 0.3, fc="white", ec=style.FROZEN_EDGE, lw=1.0, gid="output")
        self.canvas.text(centre, "output", self.size, weight="bold")
        for x, y in sources:
            path = through([(x, y + _BOX_HEIGHT / 2), (centre[0], centre[1] - 0.15)])
            self.canvas.arrow(path, style.FORWARD, 1.1, "forward -> output")

    def _loss(self, centre: Point) -> None:
        x, y = centre
        self.canvas.box(centre, 0.6, 0.3, fc=style.ERROR_EDGE, ec=style.ERROR_EDGE, lw=1.0, gid="loss")
        self.canvas.text(centre, "loss", self.size, weight="bold", color="white")
        for source, _ in self.network.in_edges("loss()"):
            bx, by = self.layout.boxes[source]
            path = bend((bx, by + _BOX_HEIGHT / 2), (bx, y), (bx, y), (x - 0.3, y))
            self.canvas.arrow(path, style.FORWARD, 1.1, f"forward {source} -> loss")
            if source in self.errors:
                self._loss_gradient(centre, self.errors[source])

    def _loss_gradient(self, centre: Point, error: Point) -> None:
        rows = round((centre[1] - error[1]) / self.row_height)
        bulge = 0.0 if rows <= 1 else -0.22 * rows**0.5
        start, stop = (centre[0], centre[1] - 0.15), (error[0], error[1] + _RADIUS)
        path = bend(start, (start[0] + bulge, start[1] - 0.15), (stop[0] + bulge, stop[1] + 0.15), stop)
        self.canvas.arrow(path, style.ERROR_EDGE, 2.0, "loss gradient")


def _texts(values: Mapping[str, Any]) -> tuple[str, str]:
    """The two lines of a box: its name; what it does, its shape, what it shares weights with, its device."""
    if values["kind"] == "input":
        return str(values["label"]), str(values["shape"])
    device = f"   {values['device']}" if values.get("device") else ""
    tied = f"   tied to {values['tied']}" if values.get("tied") else ""
    does = values.get("does") or values["operator"]
    return shorten(str(values["label"])), f"{does}   {values['shape']}{tied}{device}"
