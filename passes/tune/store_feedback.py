"""Reads feedback as it will be stored: channels last where its products make images."""

from altprop.ir.layouts import feedback_of
from altprop.passes.tune.base import Tuned, TuningPass
from altprop.passes.tune.channels_last import store_feedback


class StoreFeedback(TuningPass):
    """Reads feedback as it will be stored, so that nothing is copied at a step."""

    def applies(self, tuned: Tuned) -> bool:
        """Whether the layout is chosen here, and no compiler chooses another."""
        return not tuned.allowed.laid_out and not tuned.allowed.opaque

    def run(self, tuned: Tuned) -> int:
        """See `store_feedback`."""
        return store_feedback(tuned.program.graph.graph, feedback_of(tuned.program).values())
