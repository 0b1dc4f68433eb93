"""What is audited, and the runs that it takes: the rule's own, and those of the controls."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from altprop.auditing.audit_report import Audit
from altprop.auditing.judge import Limits, above_floor, judge, rows_of
from altprop.auditing.look import Look, look
from altprop.ir.loss import Loss
from altprop.runtime.net import LocalNet
from altprop.runtime.true_gradients import first

Pair = tuple[Any, Any]
CONTROL_RATES = (1.0, 10.0)
"""Times the rule's rate: one layer that learns alone often wants a higher rate than many that learn together."""


@dataclasses.dataclass(frozen=True)
class AuditSubject:
    """A model, a rule and data.

    Attributes:
        start: makes the untrained model, the same at every call.
        compile: makes a net with an optimizer of a model, by a mapping of rules, or by the audited rule for None; its
            third argument is what the optimizer's rate is multiplied by.
        batches: the training data of all epochs in batches, the same at every call.
        test: the test data in batches.
        batch: what regions are looked at with.
        loss: of outputs and targets, a mean over samples.
        stepped: hears of every step of a control.
    """

    start: Callable[[], nn.Module]
    compile: Callable[[nn.Module, Any, float], LocalNet]
    batches: Callable[[], Iterable[Pair]]
    test: Callable[[], Iterable[Pair]]
    batch: Pair
    loss: Loss
    stepped: Callable[[str], None] = lambda what: None

    def audit(self, rule: str, trained: LocalNet | None = None, limits: Limits | None = None) -> Audit:
        """Trains the controls, and the rule too unless its net is given; looks and judges.

        Args:
            rule: its text.
            trained: the net behind as many epochs.
            limits: None for the usual ones.
        """
        fresh = self.compile(self.start(), None, 1.0)
        before = look(fresh, *self.batch)
        net = trained or self._trained("rule", fresh)
        after = look(net, *self.batch)
        limits = limits or Limits()
        outputs = [region.name for region in fresh.graph.regions if region.is_output]
        measure, reached = score(net.model, self.loss, self.test())
        scores = {"rule": reached, "frozen blocks": self._frozen(outputs), "shallow head": self._shallow()}
        rows = rows_of(before, after)
        if above_floor([row for row in rows if row.region not in outputs]) < limits.measurable:
            rows = rows_of(before, self._early(), after)
        return Audit(rule, measure, scores, rows, judge(rows, outputs, scores, measure, limits))

    def _early(self) -> Look:
        """The rule in the first quarter of its steps: a net that has learned its data has no gradients left."""
        steps = max(sum(1 for _ in self.batches()) // 4, 1)
        return look(self._trained("rule, first quarter", self.compile(self.start(), None, 1.0), steps), *self.batch)

    def _frozen(self, outputs: list[str]) -> float:
        """The score of the same model, of which the output layer alone learns."""
        return self._control("frozen blocks", self.start, {**dict.fromkeys(outputs, "bp"), "*": "frozen"})

    def _shallow(self) -> float:
        """That of one layer from the inputs to the outputs; NaN where inputs are no numbers or outputs no vector."""
        inputs, _ = self.batch
        inputs = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        with torch.no_grad():
            output = self.start().eval()(inputs) if isinstance(inputs, Tensor) else None
        if not isinstance(output, Tensor) or output.dim() != 2 or not inputs.is_floating_point():
            return math.nan
        head = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), output.shape[1])).to(inputs)
        return self._control("shallow head", lambda: copy.deepcopy(head), {"*": "bp"})

    def _control(self, name: str, start: Callable[[], nn.Module], rules: dict[str, str]) -> float:
        """The best score of a control over its rates: a control that learned too little would prove nothing."""
        found = []
        for rate in CONTROL_RATES:
            net = self._trained(name, self.compile(start(), rules, rate))
            found.append(score(net.model, self.loss, self.test()))
        known = [value for _, value in found if not math.isnan(value)]
        best = max if found[0][0] == "accuracy" else min
        return best(known) if known else math.nan

    def _trained(self, what: str, net: LocalNet, steps: int | None = None) -> LocalNet:
        net.train()
        for inputs, target in itertools.islice(self.batches(), steps):
            net.step(inputs, target)
            self.stepped(what)
        return net


def score(model: nn.Module, loss: Loss, batches: Iterable[Pair]) -> tuple[str, float]:
    """Scores a model in evaluation mode, and puts its mode back.

    Returns:
        "accuracy" and per cent where targets are classes, else "loss" and the mean a sample.
    """
    mode = {module: module.training for module in model.modules()}
    model.eval()
    right, total, count, classes = 0.0, 0.0, 0, True
    for inputs, target in batches:
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        with torch.no_grad():
            output = model(*given)
            total += len(given[0]) * float(loss.function(output if loss.structured else first(output), target))
        classes = classes and _are_classes(output, target)
        right += 100 * float((output.argmax(1) == target).float().sum()) if classes else 0.0
        count += len(given[0])
    for module, training in mode.items():
        module.training = training
    return ("accuracy", right / count) if classes else ("loss", total / count)


def _are_classes(output: Any, target: Any) -> bool:
    tensors = isinstance(output, Tensor) and isinstance(target, Tensor)
    return tensors and output.dim() == 2 and target.dim() == 1 and not target.is_floating_point()
