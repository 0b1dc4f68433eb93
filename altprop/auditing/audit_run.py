"""`altprop.audit`: a rule on a user's own model and data, beside what it has to beat."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altprop.api import compile
from altprop.auditing.audit_report import Audit
from altprop.auditing.audit_subject import AuditSubject, Pair
from altprop.auditing.judge import Limits
from altprop.ir.loss import get_loss
from altprop.ir.optimizers import SGD, Adam, AdamW, Optimizer
from altprop.ir.training_recipe import Recipe
from altprop.rules.base import Rule
from altprop.rules.registry import recipe_of, rules_of
from altprop.runtime.net import LocalNet

_KINDS: Mapping[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def audit(
    model: nn.Module,
    train: Pair,
    test: Pair,
    rule: str | Rule | Mapping[str, str | Rule] | None = None,
    *,
    plan: Any = None,
    regions: str | Sequence[str] = "layer",
    loss: Any = "cross_entropy",
    optimizer: Optimizer | None = None,
    epochs: int = 5,
    batch: int = 64,
    seed: int = 0,
    limits: Limits | None = None,
) -> Audit:
    """Trains a copy of a model by a rule, and two controls beside it, and says whether the rule teaches hidden layers.

    The controls, with the same optimizer, data and epochs: the same model of which the output layer alone learns, and
    one layer from the inputs to the outputs. Each is trained at the rule's rate and at ten times that; the better one
    counts.

    Args:
        model: untrained; it is left as it is.
        train: inputs and targets; each a tensor, or a tuple of tensors with a sample a row.
        test: the same, held out.
        rule: as for `altprop.compile`.
        plan: as for `altprop.compile`.
        regions: as for `altprop.compile`.
        loss: as for `altprop.compile`; a mean over samples.
        optimizer: of all runs; None for the rule's recipe, at a constant rate.
        epochs: passes over the training data.
        batch: samples a step; the regions are looked at with four batches in one.
        seed: of feedback and of the data's order.
        limits: what the rule has to reach.

    Returns:
        The audit: prints as tables, `to_json` writes a file, `passed` is the verdict.
    """
    used = optimizer or optimizer_of(recipe_of(rules_of(rule)))

    def compiled(start: nn.Module, control: Any, rate: float) -> LocalNet:
        own = {"rule": rule, "plan": plan, "regions": regions} if control is None else {"rule": control}
        if control is not None and set(control) != {"*"}:
            own["regions"] = regions
        example = part(train[0], slice(0, 2))
        given = example if isinstance(example, tuple) else (example,)
        mine = dataclasses.replace(used, lr=used.lr * rate)
        return compile(start, example_inputs=given, loss=loss, optimizer=mine, seed=seed, **own)

    samples = _Samples(train, test, batch, epochs, seed)
    subject = AuditSubject(
        start=lambda: copy.deepcopy(model),
        compile=compiled,
        batches=samples.batches,
        test=samples.tests,
        batch=samples.wide(),
        loss=get_loss(loss),
    )
    return subject.audit(_text(rule), limits=limits)


@dataclasses.dataclass(frozen=True)
class _Samples:
    """What an audit is given, in batches; the order of training is a function of the seed."""

    train: Pair
    test: Pair
    batch: int
    epochs: int
    seed: int

    def batches(self) -> Iterator[Pair]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            for chosen in torch.randperm(_count(self.train[0]), generator=generator).split(self.batch):
                yield _pair(self.train, chosen)

    def tests(self) -> Iterator[Pair]:
        for chosen in torch.arange(_count(self.test[0])).split(4 * self.batch):
            yield _pair(self.test, chosen)

    def wide(self) -> Pair:
        return _pair(self.train, slice(0, 4 * self.batch))


def _pair(samples: Pair, chosen: slice | Tensor) -> Pair:
    return part(samples[0], chosen), part(samples[1], chosen)


def optimizer_of(recipe: Recipe) -> Optimizer:
    """Returns the optimizer inside the program that a recipe asks for, at its first rate."""
    names = ["lr", "feedback_lr", "output_rate", "weight_decay", "feedback_weight_decay"]
    names += ["momentum", "nesterov"] if recipe.optimizer == "sgd" else []
    settings = {name: value for name, value in recipe.settings().items() if name in names}
    return _KINDS[recipe.optimizer](**settings)


def part(values: Any, chosen: slice | Tensor) -> Any:
    """Some of the samples of a tensor, or of each of a tuple's."""
    return tuple(one[chosen] for one in values) if isinstance(values, tuple) else values[chosen]


def _count(values: Any) -> int:
    return len(values[0] if isinstance(values, tuple) else values)


def _text(rule: Any) -> str:
    rules = rules_of(rule)
    return str(rules["*"]) if set(rules) == {"*"} else str({glob: str(one) for glob, one in rules.items()})
