"""Runs: a configuration, a training loop, logs and checkpoints.

A *run* trains one model on one data set, in a folder of its own. Everything that decides its numbers is in
its `RunConfig`; everything that it has learnt by the end of an epoch is in its checkpoint, so that a run that
was stopped, at any moment and in any way, continues as if it had not been.
"""

from altprop.training.build import build_model, build_net, build_optimizer
from altprop.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from altprop.training.config import RunConfig, make_config
from altprop.training.evaluate import Score, evaluate
from altprop.training.run import Reporter, Result, train
from altprop.training.run_errors import ConfigError, TrainingError

__all__ = [
    "Checkpoint",
    "ConfigError",
    "Reporter",
    "Result",
    "RunConfig",
    "Score",
    "TrainingError",
    "build_model",
    "build_net",
    "build_optimizer",
    "evaluate",
    "load_checkpoint",
    "make_config",
    "save_checkpoint",
    "train",
]
