"""How each operator of a pure program is written in ONNX."""

from typing import Any

from altprop.compiler.export.operators import creation, elementwise, indexing, matrix_products, reductions, shapes
from altprop.compiler.export.operators.elementwise import Translator

TRANSLATORS: dict[Any, Translator] = {
    **elementwise.TABLE,
    **shapes.TABLE,
    **reductions.TABLE,
    **matrix_products.TABLE,
    **indexing.TABLE,
    **creation.TABLE,
}
