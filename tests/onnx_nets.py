"""Small nets for step files and for sessions of onnxruntime, and their batches."""

from collections.abc import Callable
from typing import Any

import kept
import torch
from torch import nn
from zoo_cases import Case

import altprop

SGD = altprop.optim.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3)
ADAMW = altprop.optim.AdamW(lr=1e-2)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3))


def convnet(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(4 * 2 * 2, 3),
    )


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def batch_of(shape: tuple[int, ...], batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator), torch.randint(3, (batch,), generator=generator)


SHAPES = {"mlp": (7,), "convnet": (1, 8, 8)}
BUILDERS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "convnet": convnet}


def compiled(name: str, optimizer: Any = SGD, rule: str = "reclra", **options: Any) -> Any:
    x, _ = batch_of(SHAPES[name], 4)
    return kept.compile(seeded(BUILDERS[name]), rule, example_inputs=(x,), optimizer=optimizer, **options)


def zoo_net(case: Case, rule: str, optimizer: Any, **options: Any) -> Any:
    """A model of the zoo in float32."""
    return kept.net(case, rule, in_float32=True, optimizer=optimizer, **options)


def steps(net: Any, name: str, count: int, first: int = 0) -> list[float]:
    made = []
    for step in range(first, first + count):
        x, y = batch_of(SHAPES[name], 4 + step % 3, seed=step)
        made.append(float(net.step(x, y)))
    return made


def assert_close(one: Any, other: Any, atol: float = 1e-5) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=atol, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
