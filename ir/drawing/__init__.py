"""Drawings of an error-pathway graph: as a networkx graph, in the DOT language, as a picture, as a page.

A drawing has one row for each region, in the order of the forward pass: the forward path runs down on the
left, the error neurons stand in a lane on the right, and skip-error connections arch upwards beside it.
"""

from altprop.ir.drawing.as_networkx import to_networkx
from altprop.ir.drawing.dot import to_dot
from altprop.ir.drawing.picture_files import draw

__all__ = ["draw", "to_dot", "to_networkx"]
