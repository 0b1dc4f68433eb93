"""How each operator of a pure program is written in ONNX; `translates` adds operators of a user's own."""

from collections.abc import Callable
from typing import Any

from altprop.compiler.export.operators import (
    creation,
    elementwise,
    indexing,
    loops,
    matrix_products,
    shapes,
    sums_and_extremes,
)
from altprop.compiler.export.operators.elementwise import Translator

TRANSLATORS: dict[Any, Translator] = {
    **elementwise.TABLE,
    **shapes.TABLE,
    **sums_and_extremes.TABLE,
    **matrix_products.TABLE,
    **indexing.TABLE,
    **creation.TABLE,
    **loops.TABLE,
}


def translates(*targets: Any) -> Callable[[Translator], Translator]:
    """Decorates a function that writes an operator, such as `torch.ops.mine.square.default`, in ONNX.

    The function takes the emitter, the node, and the node's arguments; it returns the name of the result, or names.
    """

    def add(translator: Translator) -> Translator:
        TRANSLATORS.update(dict.fromkeys(targets, translator))
        return translator

    return add
