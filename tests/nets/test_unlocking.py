"""Update unlocking: an update runs as soon as all that it reads is there, whatever its rule is called."""

import dataclasses
from typing import Any, ClassVar

import kept
import pytest
import torch
from tiny import Residual
from torch import nn

import altprop
from altprop.ir.program import Program
from altprop.rules import Rule

LAYERS = 6
WIDTH = 16
BATCH = 32


@dataclasses.dataclass(frozen=True)
class OwnActivity(Rule):
    """A rule that needs nothing but its own region: it shrinks its activity."""

    name: ClassVar[str] = ""

    def signal(self, local, incoming):  # type: ignore[no-untyped-def]
        return local.z


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*parts, nn.Linear(WIDTH, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, WIDTH, generator=generator), torch.randint(3, (BATCH,), generator=generator)


def compiled(rule: Any, loss: Any = "cross_entropy", program: str = "backward") -> altprop.LocalNet:
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9) if program == "step" else None
    return kept.compile(deep(), rule, example_inputs=(data()[0],), optimizer=optimizer, loss=loss)


def order_of_products(program: Program) -> list[str]:
    """Which operators run: "f" for a layer's forward, "u" for the product that makes its update, "loss"."""
    letters = {"addmm.default": "f", "mm.default": "u", "addmm_.default": "u", "_linear_pointwise.default": "f"}
    names = [str(node.target).rpartition("aten.")[2].replace("mkldnn.", "") for node in program.graph.graph.nodes]
    return ["loss" if "log_softmax.default" in name else letters.get(name, "") for name in names]


def test_updates_that_need_no_loss_run_during_the_forward() -> None:
    """Between two layers' forwards stands the first one's update; those that need the loss stand behind it."""
    seen = "".join(s[0] for s in order_of_products(compiled(OwnActivity()).graph.programs["backward"]) if s)
    assert seen.startswith("fu" * LAYERS + "fl")
    seen = "".join(s[0] for s in order_of_products(compiled("dfa").graph.programs["backward"]) if s)
    assert seen.startswith("f" * (LAYERS + 1) + "l")


@pytest.mark.parametrize("program", ["backward", "step"])
def test_what_an_unlocked_region_keeps_is_freed_before_the_next(program: str) -> None:
    layer = BATCH * WIDTH * 4
    unlocked = compiled(OwnActivity(), program=program).memory(*data())
    locked = compiled("dfa", program=program).memory(*data())
    assert locked.saved >= LAYERS * layer
    assert unlocked.saved <= 2 * layer
    assert unlocked.live <= 4 * layer


def test_random_target_projection_is_unlocked() -> None:
    """Saved activations do not grow with depth."""
    assert compiled("drtp").memory(*data()).saved <= 2 * BATCH * WIDTH * 4


def test_the_counting_is_that_of_autograd() -> None:
    """Under backpropagation a step saves what autograd saves: every activity, and the scores' softmax."""
    x, y = data()
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model = deep()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(model(x), y)
    own = {tensor.untyped_storage().data_ptr() for tensor in (x, y, *model.parameters())}
    by_autograd = sum(size for pointer, size in saved.items() if pointer not in own)
    assert loss.grad_fn is not None
    scores = BATCH * 3 * 4
    assert abs(compiled("bp").memory(x, y).saved - by_autograd) <= scores


def test_counting_alters_nothing() -> None:
    torch.manual_seed(0)
    net = kept.compile(
        Residual(), "dfa", example_inputs=(torch.randn(4, 3, 8, 8),), optimizer=altprop.optim.Adam(lr=0.1)
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.memory(torch.randn(4, 3, 8, 8), torch.randint(4, (4,)))
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(reduction="sum")])
def test_unlocked_updates_are_the_same_updates(loss: object) -> None:
    x, y = data()
    net = compiled(OwnActivity(), loss)
    net.backward(x, y)
    z, scale = x, 1 / BATCH if loss == "cross_entropy" else 1.0
    for layer in range(LAYERS):
        linear = net.model.get_submodule(str(2 * layer))
        assert isinstance(linear, nn.Linear)
        below, z = z, torch.tanh(linear(z)).detach()
        error = z * (1 - z**2)
        assert linear.weight.grad is not None
        assert torch.allclose(linear.weight.grad, scale * error.T @ below, atol=1e-6)
    assert float(net.model.get_parameter("0.weight").grad.abs().max()) > 1e-3  # type: ignore[union-attr]


def test_a_step_that_moves_weights_during_the_forward_is_backward_and_optimizer() -> None:
    """The optimizer writes a parameter behind its last reader, so an early update moves no later value."""
    x, y = data()
    inside, outside = compiled(OwnActivity(), program="step"), compiled(OwnActivity())
    optimizer = torch.optim.SGD(outside.model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        loss = inside.step(x, y)
        optimizer.zero_grad()
        assert torch.allclose(loss, outside.backward(x, y), atol=1e-6)
        optimizer.step()
    for one, other in zip(inside.model.parameters(), outside.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_unlocking_works_across_blocks_norms_and_shortcuts() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 8, 8), torch.randint(4, (4,))
    net = kept.compile(Residual(), OwnActivity(), example_inputs=(x,))
    program = net.graph.programs["backward"].graph.graph
    names = [str(node.target) for node in program.nodes]
    forwards = [index for index, name in enumerate(names) if name == "aten.convolution.default"]
    updates = [index for index, name in enumerate(names) if name == "aten.convolution_backward.default"]
    assert len(forwards) == len(updates) == 5
    for update, following in zip(updates, forwards[1:], strict=False):
        assert update < following
    net.backward(x, y)
    assert all(parameter.grad is not None for parameter in net.model.parameters())
