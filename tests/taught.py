"""What the tests of learners share."""

from collections.abc import Sequence

import torch
from torch import nn

import altprop
from altprop.learners import Learner


class Recorder(Learner):
    """Predicts by a fixed linear map, keeps what it is told, and moves nothing."""

    def __init__(self, inputs: int, outputs: int, step: float = 1.0, rate: float = 0.0) -> None:
        super().__init__(step)
        generator = torch.Generator().manual_seed(inputs + outputs)
        self.weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        self.outputs, self.rate = outputs, rate
        self.told: list[tuple[torch.Tensor, torch.Tensor]] = []

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        return (self.outputs,)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t().to(x.dtype)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        self.told.append((x, t))
        self.weight = self.weight + self.rate * (t - self.predict(x)).t() @ x / len(x)

    def state(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.weight = state["weight"]


def batch(samples: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (samples,), generator=generator)


def stack(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), *middle, nn.Linear(4, 3)).double()


def compiled(model: nn.Module, rule: object = "dfa", **options: object) -> altprop.LocalNet:
    return altprop.compile(model, rule, **{"example_inputs": (batch()[0][:2],), **options})
