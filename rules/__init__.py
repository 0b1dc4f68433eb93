"""Learning rules, one a file, and the kinds of feedback that connections carry."""

from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import Incoming, Local, Rule
from altprop.rules.bp import Backprop
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.drtp import DirectRandomTargetProjection
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.local_loss import LocalLoss
from altprop.rules.reclra import RecursiveLRA
from altprop.rules.registry import available, get

__all__ = [
    "Auxiliary",
    "Backprop",
    "DirectFeedbackAlignment",
    "DirectRandomTargetProjection",
    "FeedbackAlignment",
    "Incoming",
    "Local",
    "LocalLoss",
    "RecursiveLRA",
    "Rule",
    "available",
    "get",
]
