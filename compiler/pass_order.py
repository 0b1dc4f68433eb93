"""The order of the passes, as data: the pipeline runs no others, and `docs/draw_flow.py` draws them.

Before them stands the capture; `AddOptimizer` is left out where there is no optimizer inside the program.
"""

from altprop.passes.add_optimizer import AddOptimizer
from altprop.passes.base import Pass
from altprop.passes.cleanup import Cleanup
from altprop.passes.connect_skip_errors import ConnectSkipErrors
from altprop.passes.cut_regions import CutRegions
from altprop.passes.derive_updates import DeriveUpdates
from altprop.passes.flatten import Flatten
from altprop.passes.insert_error_neurons import InsertErrorNeurons
from altprop.passes.insert_feedback import InsertFeedback
from altprop.passes.linearize_regions import LinearizeRegions

ORDER: tuple[type[Pass], ...] = (
    CutRegions,
    InsertErrorNeurons,
    ConnectSkipErrors,
    LinearizeRegions,
    InsertFeedback,
    DeriveUpdates,
    Flatten,
    AddOptimizer,
    Cleanup,
)
