"""Audits of runs: the controls of a run train on the same batches, and no run's numbers are changed by it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import altprop
from altprop.auditing.audit_report import Audit
from altprop.auditing.audit_subject import AuditSubject
from altprop.data import BatchSampler, DataSet
from altprop.ir.loss import get_loss
from altprop.runtime.net import LocalNet
from altprop.training.build import build_model, build_net, build_optimizer
from altprop.training.config import RunConfig

LOOKED_AT = 256
"""Samples that regions are looked at with, at most."""


def audit_run(
    config: RunConfig, data: DataSet, net: LocalNet | None = None, stepped: Callable[[str], None] = lambda what: None
) -> Audit:
    """Audits a run: its net, or one that is trained here.

    All nets learn at the configuration's first rate, controls at ten times that too: a schedule of rates is left out
    where the net is trained here, and in the controls.

    Args:
        config: of the run.
        data: its data set.
        net: the run's net behind all its epochs; None to train one.
        stepped: hears of every step, by the name of what is trained.
    """
    data = data.to(config.device)
    first = data.train.images[:LOOKED_AT]

    def start() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return build_model(config, data.shape, data.classes).to(config.device)

    def compiled(model: nn.Module, control: Any, rate: float) -> LocalNet:
        faster = config.model_copy(update={"lr": config.lr * rate})
        return _compiled(faster, model, data.inputs(data.train.images[:2]), control)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        sampler = BatchSampler(data, config.batch_size, seed=config.seed, augment=config.augment)
        for _ in range(config.epochs):
            yield from sampler.epoch()

    def tests() -> Iterator[tuple[Tensor, Tensor]]:
        yield from data.batches(data.test, 500)

    subject = AuditSubject(
        start=start,
        compile=compiled,
        batches=batches,
        test=tests,
        batch=(data.inputs(first), data.train.labels[:LOOKED_AT]),
        loss=get_loss("cross_entropy"),
        stepped=stepped,
    )
    return subject.audit(config.rule_text, net)


def _compiled(config: RunConfig, model: nn.Module, example: Tensor, control: Any) -> LocalNet:
    """The run's net, or that of a control, which is a mapping of rules."""
    if control is None:
        return build_net(config, model, example)
    return altprop.compile(
        model,
        control,
        example_inputs=(example,),
        regions=config.regions if len(control) > 1 else "layer",
        optimizer=build_optimizer(config),
        seed=config.seed,
    )
