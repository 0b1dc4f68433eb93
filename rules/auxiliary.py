"""Auxiliary parameters: tensors of a region that are no part of the model, and that a rule lets learn.

A local classifier, a learned inverse: what a region needs to make its own error. They are drawn, saved, moved by the
optimizer and counted with the feedback parameters, under the name `"region:name"`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """One auxiliary parameter of a region.

    Attributes:
        shape: its shape.
        distribution: "kaiming_uniform", "uniform" or "normal".
        scale: multiplies the distribution's own width; 0 for zeros.
        learning: whether the rule moves it.
    """

    shape: tuple[int, ...]
    distribution: str = "kaiming_uniform"
    scale: float = 1.0
    learning: bool = True
