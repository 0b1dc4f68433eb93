"""What a picture is made of: boxes, circles, texts and arrows, in inches, y downwards."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from altprop.ir.drawing.arrange import Point

Curve = Sequence[Point]
"""Start, then two control points and an end for each Bezier curve."""

INK = "#1f2430"
DASHES = (0, (4, 2.2))
_HEAD_LENGTH, _HEAD_WIDTH = 0.085, 0.075


class Canvas:
    """A figure and one set of axes that covers it.

    Args:
        width: in inches.
        height: in inches.
        top: y of the upper border; y = 0 is `top` inches below it.
    """

    def __init__(self, width: float, height: float, top: float) -> None:
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height - top, -top))
        self.axes.set_axis_off()

    def text(self, at: Point, text: str, size: float, **options: Any) -> None:
        """Writes a text, centred unless `ha` or `va` say otherwise; nothing in it is taken as mathematics."""
        options = {"ha": "center", "va": "center", "color": INK, "zorder": 4, **options}
        self.axes.text(*at, text, fontsize=size, parse_math=False, **options)

    def box(self, centre: Point, width: float, height: float, **options: Any) -> None:
        """Draws a box with round corners."""
        corner = (centre[0] - width / 2, centre[1] - height / 2)
        shape = "round,pad=0,rounding_size=0.07"
        self.axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, zorder=3, **options))

    def band(self, corner: Point, width: float, height: float, **options: Any) -> None:
        """Draws a rectangle behind everything."""
        self.axes.add_patch(Rectangle(corner, width, height, zorder=0, **options))

    def circle(self, centre: Point, radius: float, **options: Any) -> None:
        """Draws a circle."""
        self.axes.add_patch(Circle(centre, radius, zorder=3, **options))

    def line(self, start: Point, stop: Point, **options: Any) -> None:
        """Draws a straight line behind boxes."""
        self.axes.add_line(Line2D([start[0], stop[0]], [start[1], stop[1]], zorder=1, **options))

    def arrow(self, curve: Curve, colour: str, width: float, gid: str, **options: Any) -> None:
        """Draws Bezier curves with an arrow head at their end; options are `dashed` and `zorder`."""
        end, before, zorder = curve[-1], curve[-2], options.get("zorder", 2)
        length = math.hypot(end[0] - before[0], end[1] - before[1]) or 1.0
        ux, uy = (end[0] - before[0]) / length, (end[1] - before[1]) / length
        base = (end[0] - ux * _HEAD_LENGTH, end[1] - uy * _HEAD_LENGTH)
        path = Path([*curve[:-1], base], [Path.MOVETO, *[Path.CURVE4] * (len(curve) - 1)])
        style: Any = DASHES if options.get("dashed") else "-"
        self.axes.add_patch(PathPatch(path, fc="none", ec=colour, lw=width, ls=style, zorder=zorder, gid=gid))
        half = _HEAD_WIDTH / 2 + width / 144
        wings = [(base[0] - uy * half, base[1] + ux * half), (base[0] + uy * half, base[1] - ux * half)]
        self.axes.add_patch(Polygon([end, *wings], fc=colour, ec="none", zorder=zorder + 0.1))


def through(points: Sequence[Point]) -> Curve:
    """Returns a curve through points that is vertical at each of them."""
    vertices: list[Point] = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
    return vertices


def bend(*vertices: Point) -> Curve:
    """Returns one Bezier curve: start, two control points, end."""
    return vertices


def inches(text: str, size: float, weight: str = "normal") -> float:
    """Returns the width of a text of `size` points."""
    if not text.strip():
        return 0.0
    path = TextPath((0, 0), text, size=size, prop=FontProperties(family="DejaVu Sans", weight=weight))
    return float(path.get_extents().width) / 72


def shorten(text: str, most: int = 44) -> str:
    """Returns a text of at most `most` characters; what is left out of its middle is marked."""
    half = max((most - 1) // 2, 1)
    return text if len(text) <= most else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
