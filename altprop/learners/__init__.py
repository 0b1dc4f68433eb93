"""Regions that teach themselves: what the compiler does not look into, and no rule differentiates.

A learner stands in a model like any module. At every step of the net it learns from its input and a target that the
region's rule sets; see `docs/learners.md`.
"""

from altprop.learners.base import Learner
from altprop.learners.compose import Rolling, Vote
from altprop.learners.cross import Inverse, Search, Surrogate
from altprop.learners.lookup import LookupTable, Neighbours
from altprop.learners.scikit import Scikit
from altprop.learners.trees import Boosted, Forest

__all__ = [
    "Boosted",
    "Forest",
    "Inverse",
    "Learner",
    "LookupTable",
    "Neighbours",
    "Rolling",
    "Scikit",
    "Search",
    "Surrogate",
    "Vote",
]
