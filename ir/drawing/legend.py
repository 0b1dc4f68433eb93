"""The legend of a picture: samples with their meaning, in as many lines as the width asks for."""

from collections.abc import Sequence

from altprop.ir.drawing import style
from altprop.ir.drawing.arrange import Point
from altprop.ir.drawing.canvas import DASHES, Canvas, inches

_SAMPLE, _GAP, _LINE = 0.34, 0.26, 0.2


class Legend:
    """Entries set in lines.

    Args:
        entries: what to explain.
        size: of the letters, in points.
        width: of a line, in inches.
    """

    def __init__(self, entries: Sequence[style.Entry], size: float, width: float) -> None:
        self.size = size
        self.places: list[tuple[style.Entry, float, int]] = []
        x, line = 0.0, 0
        for entry in entries:
            own = _SAMPLE + 0.08 + inches(entry.label, size)
            if x and x + own > width:
                x, line = 0.0, line + 1
            self.places.append((entry, x, line))
            x += own + _GAP
        self.height = (line + 1) * _LINE

    def draw(self, canvas: Canvas, corner: Point) -> None:
        """Draws the legend with its first line at `corner`."""
        for entry, offset, line in self.places:
            x, y = corner[0] + offset, corner[1] + line * _LINE
            if entry.circle:
                canvas.circle((x + _SAMPLE / 2, y), 0.07, fc=style.ERROR_FILL, ec=entry.colour, lw=entry.width)
            else:
                dashes = DASHES if entry.dashed else "-"
                canvas.line((x, y), (x + _SAMPLE, y), color=entry.colour, lw=entry.width, ls=dashes)
            canvas.text((x + _SAMPLE + 0.08, y), entry.label, self.size, ha="left")
