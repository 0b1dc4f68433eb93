"""Recipes: settings under which a rule trains, kept with the rule as data.

A recipe is where to start, not what is best: each was found on the small task of `benchmarks/small_task.py`.
`altprop train` uses the rule's recipe for what the user does not set; `net.param_groups()` has its rates and decays.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings under which a rule trains.

    Attributes:
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate of the model's parameters.
        feedback_lr: learning rate of learned feedback; None means `lr`.
        output_rate: times `lr`, the learning rate of the parameters of output regions; None means 1.
        weight_decay: of the model's parameters; None means the optimizer's own.
        feedback_weight_decay: of learned feedback; None means `weight_decay`.
        momentum: of SGD.
        nesterov: whether SGD's momentum takes Nesterov's form.
        lr_schedule: "constant", "cosine" or "step".
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    feedback_lr: float | None = None
    output_rate: float | None = None
    weight_decay: float | None = None
    feedback_weight_decay: float | None = None
    momentum: float | None = None
    nesterov: bool = False
    lr_schedule: str = "constant"

    def settings(self) -> dict[str, object]:
        """Returns what differs from None and False, by the names that a run's configuration uses."""
        return {
            key: value for key, value in dataclasses.asdict(self).items() if value is not None and value is not False
        }

    def __str__(self) -> str:
        rest = {key: value for key, value in self.settings().items() if key not in ("optimizer", "lr_schedule")}
        words = [self.optimizer, *(f"{key}={value:g}" if key != "nesterov" else key for key, value in rest.items())]
        return ", ".join(words + ([self.lr_schedule] if self.lr_schedule != "constant" else []))
