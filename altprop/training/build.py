"""From a configuration to a model, an optimizer, and a compiled net."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import altprop
from altprop import models
from altprop.training.config import RunConfig
from altprop.training.run_errors import TrainingError
from altprop.training.user_model import build_user_model, is_user_model
from altprop.training.user_rule import known_rule


def build_model(config: RunConfig, shape: Sequence[int], classes: int) -> nn.Module:
    """Build the model by name or from the user's file, on the CPU, from torch's global random state."""
    options = dict(config.model_options)
    for key in ("hidden", "activation"):
        if getattr(config, key) is not None:
            options[key] = getattr(config, key)
    if is_user_model(config.model):
        return build_user_model(config.model, options)
    return models.build(config.model, shape, classes, **options)


def build_optimizer(config: RunConfig) -> "altprop.optim.Optimizer":
    """Build the optimizer that runs inside the program; what the configuration leaves out is its default."""
    options: dict[str, Any] = {"lr": config.lr}
    for key in ("weight_decay", "feedback_lr", "feedback_weight_decay", "output_rate"):
        if getattr(config, key) is not None:
            options[key] = getattr(config, key)
    if config.optimizer == "sgd":
        options |= {"momentum": config.momentum or 0.0, "nesterov": config.nesterov}
    if config.optimizer == "muon":
        options["adjust_lr_fn"] = "match_rms_adamw"  # its rate is what AdamW's would be
    kinds = {
        "sgd": altprop.optim.SGD,
        "adam": altprop.optim.Adam,
        "adamw": altprop.optim.AdamW,
        "muon": altprop.optim.Muon,
    }
    return kinds[config.optimizer](**options)


def build_net(config: RunConfig, model: nn.Module, example: Tensor) -> altprop.LocalNet:
    """Compile the model as the configuration says.

    Args:
        config: the run's configuration.
        model: on the run's device already.
        example: a batch of inputs on the same device.

    Raises:
        TrainingError: the model wants more than one input.
    """
    _check_inputs(config.model, model)
    return altprop.compile(
        model,
        rule=known_rule(config.rule),
        example_inputs=(example,),
        plan=config.plan,
        regions=config.regions,
        loss="cross_entropy",
        optimizer=build_optimizer(config),
        backend=config.backend,
        seed=config.seed,
    )


def _check_inputs(name: str, model: nn.Module) -> None:
    """Refuse a model that cannot run on one input."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [
        one.name
        for one in inspect.signature(model.forward).parameters.values()
        if one.kind in kinds and one.default is one.empty
    ]
    if len(wanted) > 1:
        inputs = ", ".join(wanted)
        raise TrainingError(
            f"{name} wants {len(wanted)} inputs ({inputs}), and the data sets here have one; with data of your own, in "
            f"Python, a loop of net.step(({inputs}), target) trains it, and altprop.audit audits it"
        )


def check_outputs(net: nn.Module, example: Tensor, classes: int) -> None:
    """Refuse a model whose outputs are not one number a class."""
    net.eval()
    with torch.no_grad():
        outputs = net(example)
    net.train()
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] < classes:
        found = tuple(outputs.shape[1:]) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TrainingError(f"the model must give {classes} numbers a sample, one for each class, but it gives {found}")


def check_device(name: str) -> torch.device:
    """Parse a device's name and see that this machine has it."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(f"device '{name}' cannot be used here: {reason}") from error
    return device
