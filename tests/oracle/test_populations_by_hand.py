"""Populations that keep a state, each beside a textbook in NumPy that gets the same noise: two steps of two layers."""

import copy
import math

import kept
import numpy as np
import pytest
import torch
from torch import nn

import altprop
from altprop.ir.program import Slot
from altprop.runtime.noise import Noise, noise_forms

pytestmark = pytest.mark.third

SEED, SAMPLES = 5, 20
TARGET = "target='reclra(beta=0.5)'"
Array = np.ndarray
State = dict[str, Array]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 9, generator=generator).double()
    return x, torch.randn(SAMPLES, 3, generator=generator).double()


def compiled(model: nn.Module, rule: str, **options: object) -> altprop.LocalNet:
    example = (batch()[0][:2],)
    return kept.compile(model, rule=rule, **{"loss": "mse", "example_inputs": example, "seed": SEED, **options})


def numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()


def counted(fitness: Array, of_rank: Array) -> Array:
    """What each member counts, by rank; of ties the mean."""
    ordered = np.sort(fitness)
    return np.array([of_rank[ordered == value].mean() for value in fitness])


class Unit:
    """One unit: a row `w`, and the fitness of a member that lies `change` away."""

    def __init__(self, inputs: Array, w: Array, t: Array, phi: object) -> None:
        self.inputs, self.w, self.t, self.phi = inputs, w, t, phi

    def fitness(self, change: Array) -> float:
        return float(np.square(self.phi(self.inputs @ (self.w + change)) - self.t).sum() / 2)  # type: ignore[operator]


def snes(fitness: object, state: State, noise: list[Array], number: int) -> tuple[Array, State]:
    """Algorithm 6 of Schaul et al.; `fitness` takes a change and returns a number."""
    s = np.concatenate([noise[0], -noise[0]])
    sigma, members = 0.3 * np.exp(state["log_sigma"]), len(s)
    found = np.array([fitness(sigma * one) for one in s])  # type: ignore[operator]
    raw = np.maximum(0, math.log(members / 2 + 1) - np.log(np.arange(1, members + 1)))
    u = counted(found, raw / raw.sum() - 1 / members)
    u = u.reshape(-1, *[1] * (s.ndim - 1))
    eta = (3 + math.log(number)) / (5 * math.sqrt(number))
    log_sigma = state["log_sigma"] + eta / 2 * (u * (s**2 - 1)).sum(0)
    return sigma * (u * s).sum(0), {"log_sigma": log_sigma}


def cem(fitness: object, state: State, noise: list[Array], number: int) -> tuple[Array, State]:
    """Mean and deviation of the best quarter."""
    sigma = 0.3 * np.exp(state["log_sigma"])
    changes = sigma * np.concatenate([noise[0], -noise[0]])
    found = np.array([fitness(change) for change in changes])  # type: ignore[operator]
    best = changes[np.argsort(found)[: len(changes) // 4]]
    width = 0.9 * sigma + 0.1 * best.std(0)
    return 0.5 * best.mean(0), {"log_sigma": np.log(width / 0.3)}


def pso(fitness: object, state: State, noise: list[Array], number: int) -> tuple[Array, State]:
    """A swarm that tries its best positions again, drawn to them and to the best of all."""
    x, v, p = (state[name].copy() for name in ("positions", "velocities", "bests"))
    r1, r2 = ((1 + np.vectorize(math.erf)(one / math.sqrt(2))) / 2 for one in noise[:2])
    known = np.array([min(fitness(a), fitness(b)) for a, b in zip(x, p, strict=True)])  # type: ignore[operator]
    for m in range(len(x)):
        if fitness(x[m]) < fitness(p[m]):  # type: ignore[operator]
            p[m] = x[m]
    g = p[known.argmin()]
    for m in range(len(x)):
        v[m] = 0.3 * v[m] + 0.5 * r1[m] * (p[m] - x[m]) + 1.0 * r2[m] * (g - x[m])
        x[m] = x[m] + v[m] + 0.5 * 0.3 * noise[2][m]
    moved = 0.5 * g
    return moved, {"positions": x - moved, "velocities": v, "bests": p - moved}


def ga(fitness: object, state: State, noise: list[Array], number: int) -> tuple[Array, State]:
    """The four best stay; the others are children of two of the best sixteen."""
    x = state["population"]
    ranked = x[np.argsort([fitness(one) for one in x])]  # type: ignore[operator]
    mother, father, side, mutation = noise
    grown = list(ranked[:4])
    for m in range(len(x) - 4):
        a, b = (ranked[min(int((1 + math.erf(n / math.sqrt(2))) / 2 * 16), 15)] for n in (mother[m], father[m]))
        grown.append(np.where(side[m] > 0, a, b) + 0.3 * mutation[m])
    moved = 0.3 * ranked[0]
    return moved, {"population": np.array(grown) - moved}


TEXTBOOKS = {"snes": snes, "cem": cem, "pso": pso, "ga": ga}


def step_by_hand(
    rule: str, layers: list[list[Array]], feedback: Array, states: list[State], drawn: dict[Slot, torch.Tensor]
) -> None:
    """Moves rows and states in place: `layers` holds the inputs with ones, and the rows, of both layers."""
    x, y = (numpy(one) for one in batch())
    ones = np.ones((SAMPLES, 1))
    first, second = layers
    h = np.hstack([x, ones]) @ first[0].T
    z = np.tanh(h)
    out = np.hstack([z, ones]) @ second[0].T
    e_output = 2 * (out - y) / 3
    target = np.tanh(h - 0.5 * e_output @ feedback)
    for index, (inputs, rows, t, phi) in enumerate(
        [(x, first[0], target, np.tanh), (z, second[0], out - e_output, lambda value: value)]
    ):
        region = ("0", "2")[index]
        noise = [numpy(drawn[slot]) for slot in sorted(drawn, key=lambda s: s.name) if slot.name.startswith(region)]
        state, a = states[index], np.hstack([inputs, ones])
        moved = rows.copy()
        for o in range(len(rows)):
            unit = Unit(a, rows[o], t[:, o], phi)
            own = {name: value[..., o, :] for name, value in state.items()}
            change, after = TEXTBOOKS[rule](unit.fitness, own, [one[:, o] for one in noise], rows.shape[1])
            moved[o] += change
            for name, value in after.items():
                state[name][..., o, :] = value
        layers[index][0] = moved


def rows(layer: nn.Linear) -> Array:
    return np.hstack([numpy(layer.weight), numpy(layer.bias)[:, None]])


def auxiliary(net: altprop.LocalNet, region: str) -> State:
    start = f"{region}:"
    return {name.removeprefix(start): numpy(p) for name, p in net.feedback.items() if name.startswith(start)}


@pytest.mark.parametrize("rule", TEXTBOOKS)
def test_two_steps_by_hand(rule):
    model, (x, y) = mlp(), batch()
    net = compiled(model, f"{rule}(members=20, sigma=0.3, {TARGET})", optimizer=altprop.optim.SGD(lr=1.0))
    noise = Noise(SEED)
    layers = [[rows(model[0])], [rows(model[2])]]
    states = [auxiliary(net, "0"), auxiliary(net, "2")]
    for _ in range(2):
        drawn = noise.draw(noise_forms(net.graph), SAMPLES, torch.device("cpu"))
        step_by_hand(rule, layers, numpy(net.feedback["2->0"]), states, drawn)
        net.step(x, y)
        for index, place in enumerate((0, 2)):
            assert rows(model[place]) == pytest.approx(layers[index][0], abs=1e-10)
            for name, value in auxiliary(net, str(place)).items():
                assert value == pytest.approx(states[index][name], abs=1e-10)


def test_one_fitness_a_region_is_the_published_form():
    """All numbers of a region are one search, with the learning rate of so many."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 3)).double()
    x, y = batch()
    net = compiled(model, "snes(members=16, sigma=0.3, credit='region')", optimizer=altprop.optim.SGD(lr=1.0))
    drawn = Noise(SEED).draw(noise_forms(net.graph), SAMPLES, torch.device("cpu"))
    before, a = rows(model[0]), np.hstack([numpy(x), np.ones((SAMPLES, 1))])
    out = a @ before.T
    t = out - 2 * (out - numpy(y)) / 3
    state = {"log_sigma": np.zeros((3, 10))}
    noise = [numpy(tensor) for tensor in drawn.values()]
    change, after = snes(lambda c: np.square(a @ (before + c).T - t).sum() / 2, state, noise, 30)
    net.step(x, y)
    assert rows(model[0]) == pytest.approx(before + change, abs=1e-10)
    assert auxiliary(net, "0")["log_sigma"] == pytest.approx(after["log_sigma"], abs=1e-10)


@pytest.mark.parametrize("rule", TEXTBOOKS)
def test_where_nothing_differs_nothing_moves(rule):
    """A constant fitness: threshold units far from their threshold. Neither parameters nor states move."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 7), altprop.nn.Heaviside(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        model[0].bias.fill_(1e6)
    net = compiled(model, f"{rule}(members=20)", optimizer=altprop.optim.SGD(lr=1.0))
    first, last = copy.deepcopy(model[0]), copy.deepcopy(model[2])
    before = auxiliary(net, "0")
    net.step(*batch())
    assert torch.equal(model[0].weight, first.weight)
    assert not torch.equal(model[2].weight, last.weight)
    for name, value in auxiliary(net, "0").items():
        assert np.array_equal(value, before[name])


def test_a_state_is_saved_and_no_optimizer_touches_it():
    x, y = batch()
    nets = [compiled(mlp(), f"snes({TARGET})", optimizer=altprop.optim.AdamW(lr=0.1)) for _ in range(2)]
    nets[0].step(x, y)
    assert not [name for name in nets[0].state_dict() if "log_sigma" in name and "exp_avg" in name]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        net.step(x, y)
    for (name, one), other in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other)), name


def test_a_step_is_evotorchs_on_the_same_samples() -> None:
    """With one fitness a region, SNES as EvoTorch has it: the distribution's own gradients and update."""
    distributions = pytest.importorskip("evotorch.distributions", reason="a step is compared with EvoTorch's here")
    torch.manual_seed(0)
    layer, x = nn.Linear(9, 3).double(), batch()[0]
    y = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(2)).double()
    rule = "snes(members=12, sigma=0.3, credit='region', antithetic=False, least=1e-6)"
    net = compiled(layer, rule, optimizer=altprop.optim.SGD(lr=1.0))
    (s,) = Noise(SEED).draw(noise_forms(net.graph), SAMPLES, torch.device("cpu")).values()
    s = s.reshape(12, -1)
    before = torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1).detach()
    samples = before.flatten() + 0.3 * s
    t = layer(x).detach() - 2 * (layer(x).detach() - y) / 3  # what a mean of squares wants of the layer
    weights = samples.reshape(12, 3, 10)
    outputs = torch.einsum("nk,mok->mno", torch.cat([x, torch.ones(SAMPLES, 1).double()], 1), weights)
    fitness = (outputs - t).square().sum((1, 2)) / 2
    search = distributions.ExpSeparableGaussian({"mu": before.flatten(), "sigma": torch.full((30,), 0.3).double()})
    found = search.compute_gradients(samples, fitness, objective_sense="min", ranking_method="nes")
    rates = {"mu": 1.0, "sigma": (3 + math.log(30)) / (5 * math.sqrt(30))}
    wanted = search.update_parameters(found, learning_rates=rates).parameters
    net.step(x, y)
    made = torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1).detach()
    (log_sigma,) = net.feedback.values()
    torch.testing.assert_close(made.flatten(), wanted["mu"], rtol=0, atol=1e-6)
    torch.testing.assert_close(0.3 * log_sigma.detach().exp().flatten(), wanted["sigma"], rtol=0, atol=1e-6)
