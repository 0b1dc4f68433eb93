"""Target propagation: each rule equals its equations, hears from where they say, and draws its own noise."""

import copy
from typing import Any

import kept
import numpy as np
import pytest
import textbook_targets
import torch
from by_hand import (
    BOUND,
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
from tiny import Residual, mlp
from torch import nn

import altprop
from altprop.ir.program import Slot

pytestmark = pytest.mark.third

RULES = ("dtp", "tp", "ddtp")
LETTERS = {"inverse.weight": "V", "inverse.bias": "v"}
STEP, SIGMA = 0.3, 0.2


def text(rule: str, top: str = "inverse") -> str:
    return f"{rule}(step={STEP}, sigma={SIGMA}, top='{top}')"


def by_letter(net: altprop.LocalNet, gradients: bool) -> dict[str, Array]:
    """Values or gradients of the inverses under their names in the textbook."""
    found = {}
    for name, value in net.feedback.items():
        region, _, kind = name.partition(":")
        chosen = value.grad if gradients else value.detach()
        assert chosen is not None, name
        found[f"{LETTERS[kind]}{int(region) // 2}"] = chosen.numpy().copy()
    return found


def moved(net: altprop.LocalNet) -> Updates:
    found: Updates = dict(by_letter(net, gradients=True))
    for name, parameter in net.model.named_parameters():
        layer, kind = name.split(".")
        assert parameter.grad is not None
        found[f"{'W' if kind == 'weight' else 'b'}{int(layer) // 2}"] = parameter.grad.numpy()
    return found


def coming_noise(net: altprop.LocalNet, x: torch.Tensor) -> list[Array]:
    """The noise that the next run will draw, by layer."""
    again = copy.deepcopy(net.noise)
    variant = next(iter(net.compilations.variants)).variant
    drawn = again.draw(variant.noise, len(x), x.device)
    slots = [Slot("noise", name_of(i)) for i in range(len(WIDTHS) - 2)]
    return [drawn[slot].numpy() if slot in drawn else np.zeros(()) for slot in slots]


KINDS = [("dtp", "inverse"), ("dtp", "gradient"), ("tp", "gradient"), ("tp", "inverse"), ("ddtp", "inverse")]


@grid(together=1, kind=[pytest.param(kind, id="-".join(kind)) for kind in KINDS])
def test_textbook(kind: tuple[str, str], activation: str, bias: bool, loss: str) -> None:
    rule, top_kind = kind
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, text(rule, top_kind), loss)
    torch.manual_seed(0)
    for value in net.feedback.values():
        value.data += 0.3 * torch.randn_like(value)
    x, target = make_data(loss)
    top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
    own = by_letter(net, gradients=False)
    how = textbook_targets.Targets(rule, STEP, SIGMA, top_kind == "gradient")
    for run in RUNS.values():
        noise = coming_noise(net, x)
        expected = textbook_targets.target_propagation(network, x.numpy(), top, own, noise, scale, how)
        run(net, loss)
        assert_equal(moved(net), expected)


class Small(nn.Module):
    """A convolution, pooling, dropout, another convolution with a norm and a shortcut, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, mask: bool = True) -> torch.Tensor:
        """Maps (N, 2, 8, 8) to (N, 3)."""
        return self.after(torch.tanh(self.one(x)), mask)

    def after(self, z: torch.Tensor, mask: bool) -> torch.Tensor:
        """From the activity of the first convolution on."""
        below = nn.functional.max_pool2d(z, 2)
        middle = torch.tanh(self.norm(self.two(self.drop(below) if mask else below)) + below)
        return self.head(middle.mean((2, 3)))


def test_direct_inverses_of_a_convnet_learn_the_difference_reconstruction_loss() -> None:
    """Autograd's gradient of that loss: the forward runs again through pooling, norm and shortcut, without a mask."""
    torch.manual_seed(0)
    model = Small().double()
    x, y = torch.randn(5, 2, 8, 8, dtype=torch.float64), torch.randint(3, (5,))
    net = kept.compile(model, text("ddtp"), example_inputs=(x,))
    variant = next(iter(net.compilations.variants)).variant
    noise = copy.deepcopy(net.noise).draw(variant.noise, 5, x.device)[Slot("noise", "one")]
    before, buffers = copy.deepcopy(model), {name: value.clone() for name, value in model.named_buffers()}
    torch.manual_seed(1)
    net.backward(x, y)
    with torch.no_grad():
        z = torch.tanh(before.one(x))
        torch.manual_seed(1)
        here, there = before.after(z, mask=True), before.after(z + SIGMA * noise, mask=False)
    inverse = net.feedback["one:inverse.weight"].detach().requires_grad_()
    missed = ((there - here) @ inverse.flatten(1)).view(z.shape) - SIGMA * noise
    (0.5 * missed.square().sum() / SIGMA**2 / 5).backward()
    assert inverse.grad is not None
    found = net.feedback["one:inverse.weight"].grad
    assert found is not None
    assert float((found - inverse.grad).abs().max()) <= BOUND * float(inverse.grad.abs().max())
    assert int(model.norm.num_batches_tracked) == int(buffers["norm.num_batches_tracked"]) + 1


@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_of_a_residual_net_moves(rule: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 8, 8), torch.randint(4, (4,))
    net = kept.compile(Residual(), rule, example_inputs=(x,))
    net.backward(x, y)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0, name


def gradients(net: altprop.LocalNet, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad(set_to_none=True)
    net.noise.count = 0
    net.backward(x, y)
    return {name: p.grad.clone() for name, p in net.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rule", ["dtp", "tp"])
def test_targets_come_down_the_chain_of_inverses(rule: str) -> None:
    """An inverse moves what is at and below its region, and nothing above; so does the target of the output."""
    x, y = make_data("cross_entropy")
    net = compile_mlp(make_mlp("tanh", True), f"{rule}(top='inverse')", "cross_entropy")
    before = gradients(net, x, y)
    with torch.no_grad():
        net.feedback["2:inverse.weight"].add_(0.5)
    after = gradients(net, x, y)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"4.weight", "4.bias", "6.weight", "6.bias"}
    other = gradients(net, x, (y + 1) % WIDTHS[-1])
    assert not any(torch.equal(after[name], other[name]) for name in after)


def test_direct_targets_come_from_the_output_alone() -> None:
    x, y = make_data("cross_entropy")
    net = compile_mlp(make_mlp("tanh", True), "ddtp", "cross_entropy")
    before = gradients(net, x, y)
    with torch.no_grad():
        net.feedback["2:inverse.weight"].add_(0.5)
    after = gradients(net, x, y)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"2.weight", "2.bias"}


def test_inverses_learn_to_reconstruct() -> None:
    """Their own loss falls to a fraction with fixed weights."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 7), torch.randint(3, (64,))
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3))
    net = kept.compile(model, "dtp(sigma=0.1)", example_inputs=(x,))
    optimizer = torch.optim.Adam([p for p in net.feedback_parameters() if p.requires_grad], lr=0.02)

    def distance() -> float:
        with torch.no_grad():
            z = torch.tanh(model[0](x))
            code = torch.tanh(model[2](z))
            made = torch.tanh(code @ net.feedback["0:inverse.weight"] + net.feedback["0:inverse.bias"])
            return float((made - z).square().mean())

    start = distance()
    for _ in range(150):
        net.zero_grad()
        net.backward(x, y)
        optimizer.step()
    assert distance() < 0.1 * start


def dtp_net(seed: int = 0) -> tuple[altprop.LocalNet, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x, y = torch.randn(8, 7), torch.randint(3, (8,))
    optimizer = altprop.optim.Adam(lr=1e-2)
    model = make_mlp("tanh", True).float()
    return kept.compile(model, "dtp", example_inputs=(x,), optimizer=optimizer, seed=seed), x, y


def test_noise_is_the_nets_own() -> None:
    """Steps leave the caller's random state alone, differ from one another, and go on after a reload bit by bit."""
    net, x, y = dtp_net()
    state = torch.get_rng_state()
    for _ in range(3):
        net.step(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    first = coming_noise(net, x)
    saved = copy.deepcopy(net.state_dict())
    assert int(saved["noise.draws"]) == 3
    net.step(x, y)
    second = coming_noise(net, x)
    assert not any(np.array_equal(a, b) for a, b in zip(first[:2], second[:2], strict=True))
    again, _, _ = dtp_net()
    again.load_state_dict(saved)
    again.step(x, y)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    third, _, _ = dtp_net(seed=1)
    assert not np.array_equal(coming_noise(third, x)[0], coming_noise(dtp_net()[0], x)[0])


def test_noise_fits_any_batch_and_counting_draws_none() -> None:
    net, x, y = dtp_net()
    net.step(x[:3], y[:3])
    assert net.noise.count == 1
    net.memory(x, y)
    assert net.noise.count == 1
    assert "noise.draws" not in compile_mlp(make_mlp("tanh", True), "dfa", "mse").state_dict()


def refuse(message: str, rule: str, model: nn.Module, x: torch.Tensor, **options: Any) -> None:
    with pytest.raises(altprop.RuleError, match=message):
        altprop.compile(model, rule, example_inputs=(x,), **options)


def test_clear_errors_where_it_does_not_apply() -> None:
    class Rectified(nn.Module):
        """Draws slopes in its forward."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Adds noise of its own."""
            z = torch.tanh(self.one(x))
            return self.two(z + torch.randn_like(z))

    refuse(r"draws random numbers in the forward, so it cannot be run again", "ddtp", Rectified(), torch.randn(4, 4))
    wide = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
    model = nn.Sequential(*wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    message = r"the inverse of 2 would hold 16384 x 16384 numbers. Use inverse=.convolution., or ddtp"
    refuse(message, "dtp(inverse='dense')", model, torch.randn(2, 1, 32, 32))
    wrongs = {
        "dtp(step=0.0)": r"dtp: step=0.0, sigma=0.1; a step is above 0",
        "tp(sigma=-1.0)": r"tp: step=10.0, sigma=-1.0; .*sigma 0 or more",
        "ddtp(sigma=0)": r"ddtp: sigma=0; the inverses learn from noise",
        "dtp(top='none')": r'dtp: top="none"; choose "gradient" or "inverse"',
        "ddtp(top='gradient')": r'ddtp: every region has an inverse from the output, so top is "inverse"',
    }
    for wrong, message in wrongs.items():
        with pytest.raises(altprop.RuleError, match=message):
            altprop.rules.get(wrong)
    signs = nn.Sequential(nn.Linear(4, 5), altprop.nn.Sign(), nn.Linear(5, 3))
    refuse('has the activation "sign"', "dtp", signs, torch.randn(4, 4))


def test_several_sources_are_refused() -> None:
    x, _ = make_data("mse")
    plan = compile_mlp(make_mlp("tanh", True), "dtp(top='inverse')", "mse").plan
    extra = altprop.Connection("6", "2", plan.connections[0].feedback)
    both = altprop.WiringPlan(plan.regions, (*plan.connections, extra))
    message = r'region "2" hears from .*takes its target from one region; leave one connection'
    refuse(message, "dtp(top='inverse')", make_mlp("tanh", True), x, plan=both)


@pytest.mark.parametrize("rule", ["dtp(top='inverse')", "ddtp", "local_loss", "brsf", "wm"])
def test_a_schedule_draws_the_noise_that_a_step_draws(rule: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 7), torch.randint(4, (8,))
    optimizer = altprop.optim.SGD(lr=0.1, fused=False)
    net = kept.compile(mlp(2), rule, example_inputs=(x,), optimizer=optimizer)
    other = copy.deepcopy(net)
    running = other.schedule(devices=2, batch=8).runtime("serial")
    for _ in range(3):
        assert torch.allclose(running.step(x, y), net.step(x, y))
    for name, value in net.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-6), name


def test_inverses_learn_through_fused_attention() -> None:
    """Attention between a region and the output runs again, with its dropout open."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.3, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), layer, nn.Flatten(), nn.Linear(32, 3))
    x, y = torch.randn(6, 4, 5), torch.randint(3, (6,))
    net = kept.compile(model, "ddtp", example_inputs=(x,))
    net.backward(x, y)
    gradient = net.feedback["0:inverse.weight"].grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0
