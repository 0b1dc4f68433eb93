"""Local losses: the rule equals its equations, listens to nothing but the target, and learns during the forward."""

from typing import Any

import kept
import numpy as np
import pytest
import textbook_targets
import torch
from by_hand import (
    BOUND,
    LOSSES,
    RUNS,
    WIDTHS,
    assert_equal,
    compile_mlp,
    grid,
    make_data,
    make_mlp,
    name_of,
    to_network,
    top_error,
)
from textbook import Array, Updates
from tiny import Encoder, Residual
from torch import nn
from torch.nn import functional

import altprop

LETTERS = {"classifier.weight": "A", "classifier.bias": "a", "similarity.weight": "C"}


def own_parameters(net: altprop.LocalNet) -> dict[str, Array]:
    """Values of the auxiliary parameters under their names in the textbook."""
    found = {}
    for name, value in net.feedback.items():
        region, _, letter = name.partition(":")
        found[f"{LETTERS[letter]}{int(region) // 2}"] = value.detach().numpy().copy()
    return found


def moved(net: altprop.LocalNet) -> Updates:
    found: Updates = {}
    for name, parameter in net.model.named_parameters():
        layer, kind = name.split(".")
        assert parameter.grad is not None
        found[f"{'W' if kind == 'weight' else 'b'}{int(layer) // 2}"] = parameter.grad.numpy()
    for name, value in net.feedback.items():
        region, _, letter = name.partition(":")
        assert value.grad is not None
        found[f"{LETTERS[letter]}{int(region) // 2}"] = value.grad.numpy()
    return found


def teaching(loss: str, target: torch.Tensor) -> Array:
    return target.numpy() if loss.startswith("mse") else np.eye(WIDTHS[-1])[target.numpy()]


@grid(together=1, beta=(0.99, 0.0, 1.0))
def test_textbook(beta: float, activation: str, bias: bool, loss: str) -> None:
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, f"local_loss(beta={beta})", loss)
    torch.manual_seed(0)
    for value in net.feedback.values():
        value.data += 0.3 * torch.randn_like(value)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    expected = textbook_targets.local_loss(
        network,
        x.numpy(),
        top,
        teaching(loss, target),
        own_parameters(net),
        scale,
        (beta, loss.removesuffix("_sum"), LOSSES[loss][1]),
    )
    for run in RUNS.values():
        run(net, loss)
        assert_equal(moved(net), expected)


def by_autograd(model: Residual, net: altprop.LocalNet, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Trains each region of the residual net greedily with autograd, cut by `detach`; returns all gradients."""
    own = {name: value.detach().clone().requires_grad_() for name, value in net.feedback.items()}
    target = functional.one_hot(y, 4).double()
    losses = []

    def similarity(features: torch.Tensor) -> torch.Tensor:
        centred = features - features.mean(1, keepdim=True)
        normal = centred / (1e-8 + centred.norm(dim=1, keepdim=True))
        return normal @ normal.T

    def learn(name: str, z: torch.Tensor) -> torch.Tensor:
        pooled = functional.avg_pool2d(z, 2).flatten(1)
        scores = functional.linear(pooled, own[f"{name}:classifier.weight"], own[f"{name}:classifier.bias"])
        features = functional.conv2d(z, own[f"{name}:similarity.weight"], padding=1).flatten(2).std(2)
        difference = similarity(features) - similarity(target)
        losses.append(0.01 * functional.cross_entropy(scores, y) + 0.99 * difference.square().mean())
        return z.detach()

    z = learn("stem", torch.relu(model.stem(x)))
    for index, block in enumerate(model.blocks):
        inner = learn(f"blocks.{index}.conv1", torch.relu(block.norm1(block.conv1(z))))
        z = learn(f"blocks.{index}.conv2", torch.relu(z + block.conv2(inner)))
    losses.append(functional.cross_entropy(model.fc(z.mean((2, 3))), y))
    sum(losses).backward()  # type: ignore[union-attr]
    named = {**dict(model.named_parameters()), **own}
    return {name: value.grad for name, value in named.items() if value.grad is not None}


def test_a_residual_net_learns_as_greedy_autograd_would() -> None:
    torch.manual_seed(0)
    model = Residual().double()
    x, y = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(4, (6,))
    net = kept.compile(model, "local_loss(features=100)", example_inputs=(x,))
    expected = by_autograd(model, net, x, y)
    net.zero_grad(set_to_none=True)
    net.backward(x, y)
    found = {**dict(net.model.named_parameters()), **dict(net.feedback.items())}
    assert set(expected) == {name for name, value in found.items() if value.requires_grad}
    for name, wanted in expected.items():
        gradient = found[name].grad
        assert gradient is not None
        assert float((gradient - wanted).abs().max()) <= BOUND * max(1.0, float(wanted.abs().max())), name


def gradients(net: altprop.LocalNet, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad(set_to_none=True)
    net.backward(x, y)
    return {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}


def test_the_signal_is_the_target_and_nothing_behind_the_region() -> None:
    x, y = make_data("cross_entropy")
    net = compile_mlp(make_mlp("tanh", True), "local_loss", "cross_entropy")
    before = gradients(net, x, y)
    with torch.no_grad():
        net.model.get_parameter("4.weight").add_(1.0)
    after = gradients(net, x, y)
    assert all(torch.equal(before[name], after[name]) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    assert not torch.equal(before["6.weight"], after["6.weight"])
    other = gradients(net, x, (y + 1) % WIDTHS[-1])
    assert not any(torch.equal(after[name], other[name]) for name in after)


def test_each_region_learns_before_the_next_begins() -> None:
    torch.manual_seed(0)
    layers = [part for _ in range(6) for part in (nn.Linear(16, 16), nn.Tanh())]
    x, y = torch.randn(32, 16), torch.randint(3, (32,))
    net = kept.compile(nn.Sequential(*layers, nn.Linear(16, 3)), "local_loss", example_inputs=(x,))
    assert net.memory(x, y).saved <= 2 * x.numel() * 4


def test_auxiliary_parameters_are_parameters_of_the_net() -> None:
    """They are saved, loaded, moved by either optimizer, and given to torch.optim with the feedback."""
    x, y = torch.randn(8, 7), torch.randint(3, (8,))
    model = make_mlp("tanh", True).float()
    optimizer = altprop.optim.Adam(lr=1e-2, feedback_lr=1e-3)
    net = kept.compile(model, "local_loss", example_inputs=(x,), optimizer=optimizer)
    names = [f"{name_of(i)}:{kind}" for i in range(3) for kind in LETTERS]
    assert sorted(net.feedback.keys()) == sorted(names)
    start = {name: value.detach().clone() for name, value in net.feedback.items()}
    net.step(x, y)
    assert all(not torch.equal(value, start[name]) for name, value in net.feedback.items())
    assert len(net.param_groups(lr=0.1)[1]["params"]) == len(names)
    again = kept.compile(make_mlp("tanh", True).float(), "local_loss", example_inputs=(x,), optimizer=optimizer)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.step(x, y), net.step(x, y))
    assert all(torch.equal(value, again.feedback[name]) for name, value in net.feedback.items())


def test_every_position_of_a_sequence_has_its_classifier() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x, y = torch.randn(3, 6, 5, dtype=torch.float64), torch.randint(4, (3, 6))
    net = kept.compile(model, "local_loss(beta=0.0)", example_inputs=(x,))
    z = torch.tanh(model[0](x)).detach()
    weight, bias = (net.feedback[f"0:classifier.{kind}"].detach().requires_grad_() for kind in ("weight", "bias"))
    functional.cross_entropy(functional.linear(z, weight, bias).flatten(0, 1), y.flatten()).backward()
    net.backward(x, y)
    for kind, wanted in (("weight", weight), ("bias", bias)):
        gradient = net.feedback[f"0:classifier.{kind}"].grad
        assert gradient is not None
        assert wanted.grad is not None
        assert float((gradient - wanted.grad).abs().max()) <= BOUND


def refuse(model: nn.Module, x: torch.Tensor, rule: Any = "local_loss", **options: Any) -> None:
    kept.compile(model, rule, example_inputs=(x,), **options)


def test_clear_errors_where_it_does_not_apply() -> None:
    with pytest.raises(altprop.RuleError, match=r'region "layer.self_attn" has an activity of shape .* Use dfa'):
        refuse(Encoder(), torch.randn(3, 6, 8), regions="operator")
    with pytest.raises(altprop.RuleError, match=r'region "0" hears from no output region.*use plan="direct"'):
        refuse(make_mlp("tanh", True), make_data("mse")[0], plan="chain")
    with pytest.raises(altprop.RuleError, match=r"local_loss: beta=2.0; it is a share, from 0 to 1"):
        altprop.rules.get("local_loss(beta=2.0)")


def test_a_bare_connection_has_nothing_to_send_over() -> None:
    class Wrong(altprop.rules.LocalLoss):
        """Takes the bare connection for a matrix."""

        def signal(self, local, incoming):  # type: ignore[no-untyped-def]
            return incoming[0].project(incoming[0].error)

    with pytest.raises(altprop.RuleError, match=r'connection 6->4: "bare" feedback holds no matrix'):
        refuse(make_mlp("tanh", True), make_data("mse")[0], Wrong())


def test_a_loss_that_holds_tensors() -> None:
    """Weights of classes count in every region's own loss."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.randint(3, (6,))
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), reduction="sum")
    net = kept.compile(model, "local_loss(beta=0.0)", example_inputs=(x,), loss=loss)
    net.backward(x, y)
    z = torch.tanh(model[2](torch.tanh(model[0](x)))).detach()
    weight, bias = (net.feedback[f"2:classifier.{kind}"].detach().requires_grad_() for kind in ("weight", "bias"))
    loss(functional.linear(z, weight, bias), y).backward()
    found = net.feedback["2:classifier.weight"].grad
    assert found is not None
    assert weight.grad is not None
    assert float((found - weight.grad).abs().max()) <= BOUND
