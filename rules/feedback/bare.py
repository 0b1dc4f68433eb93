"""No matrix and no message: the rule reads what the source sends, often with auxiliary parameters."""

from collections.abc import Sequence

from altprop.rules.feedback.kind import DirectKind, Part, Place


class Bare(DirectKind):
    """Holds nothing: what the rule makes of what the source sends is its own affair."""

    name = "bare"
    options = ()
    learnable = False

    def parts(self, place: Place) -> Sequence[Part]:
        """None."""
        return []
