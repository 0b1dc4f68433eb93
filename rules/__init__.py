"""Learning rules, one a file, and the kinds of feedback that connections carry."""

from altprop.rules.about import About
from altprop.rules.auxiliary import Auxiliary
from altprop.rules.base import BareIncoming, Incoming, Local, Rule, bare
from altprop.rules.bp import Backprop
from altprop.rules.brsf import BatchwiseRandomSign
from altprop.rules.cem import CrossEntropyMethod
from altprop.rules.ddtp import DirectDifferenceTargetPropagation
from altprop.rules.dfa import DirectFeedbackAlignment
from altprop.rules.dfa_head import HeadFeedbackAlignment
from altprop.rules.dkp import DirectKolenPollack
from altprop.rules.drtp import DirectRandomTargetProjection
from altprop.rules.dtp import DifferenceTargetPropagation
from altprop.rules.dualprop import DualPropagation
from altprop.rules.ebd import ErrorBroadcast
from altprop.rules.ep import EquilibriumPropagation
from altprop.rules.epc import ErrorPredictiveCoding
from altprop.rules.es import EvolutionStrategy
from altprop.rules.fa import FeedbackAlignment
from altprop.rules.frsf import FixedRandomSign
from altprop.rules.ga import GeneticAlgorithm
from altprop.rules.hdfa import HybridFeedbackAlignment
from altprop.rules.hebbian import Hebbian
from altprop.rules.inner import Inner
from altprop.rules.kp import KolenPollack
from altprop.rules.local_loss import LocalLoss
from altprop.rules.lra_e import ErrorDrivenLRA
from altprop.rules.ls import LeastSquares
from altprop.rules.mac import AuxiliaryCoordinates
from altprop.rules.modular import Modular
from altprop.rules.pc import PredictiveCoding
from altprop.rules.pepita import Pepita
from altprop.rules.pfa import ProductFeedbackAlignment
from altprop.rules.pso import ParticleSwarm
from altprop.rules.recipe import Recipe
from altprop.rules.reclra import RecursiveLRA
from altprop.rules.registry import available, get
from altprop.rules.sdfa import SignDirectFeedbackAlignment
from altprop.rules.snes import SeparableNaturalEvolution
from altprop.rules.steps_x import StepsX
from altprop.rules.tp import TargetPropagation
from altprop.rules.usf import UniformSign
from altprop.rules.wiring import Wiring
from altprop.rules.wm import WeightMirror

__all__ = [
    "About",
    "Auxiliary",
    "AuxiliaryCoordinates",
    "Backprop",
    "BareIncoming",
    "BatchwiseRandomSign",
    "CrossEntropyMethod",
    "DifferenceTargetPropagation",
    "DirectDifferenceTargetPropagation",
    "DirectFeedbackAlignment",
    "DirectKolenPollack",
    "DirectRandomTargetProjection",
    "DualPropagation",
    "EquilibriumPropagation",
    "ErrorBroadcast",
    "ErrorDrivenLRA",
    "ErrorPredictiveCoding",
    "EvolutionStrategy",
    "FeedbackAlignment",
    "FixedRandomSign",
    "GeneticAlgorithm",
    "HeadFeedbackAlignment",
    "Hebbian",
    "HybridFeedbackAlignment",
    "Incoming",
    "Inner",
    "KolenPollack",
    "LeastSquares",
    "Local",
    "LocalLoss",
    "Modular",
    "ParticleSwarm",
    "Pepita",
    "PredictiveCoding",
    "ProductFeedbackAlignment",
    "Recipe",
    "RecursiveLRA",
    "Rule",
    "SeparableNaturalEvolution",
    "SignDirectFeedbackAlignment",
    "StepsX",
    "TargetPropagation",
    "UniformSign",
    "WeightMirror",
    "Wiring",
    "available",
    "bare",
    "get",
]
