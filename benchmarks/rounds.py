"""Time of a step of predictive coding, over the same step as one jitted function of JAX.

The net is the small task's, 784-5x256-10 with tanh, a batch of 100, AdamW. The JAX function is what a library of
predictive coding compiles to on a CPU: the rounds as a `fori_loop`, Jacobi order, exact products by hand, buffers
donated. `pip install jax` beside torch; it is needed for this benchmark alone. A figure of 1 is JAX.

`python -m benchmarks.rounds` prints what rules that settle reach on digits: 64-64-64-10, 1,200 of 1,257 samples an
epoch in batches of 100, 30 epochs, the optimizer and rate of the rule's recipe (AdamW at 3e-3 for `bp`), three seeds.
"""

import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import altprop
from altprop.data import load
from benchmarks.form import Table
from benchmarks.interleaved import Step, ratios

WIDTHS = (784, 256, 256, 256, 256, 256, 10)
BATCH, RATE, LR, EPOCHS = 100, 0.1, 1e-3, 30
ROWS = {f"{rounds} rounds": rounds for rounds in (5, 20, 50)}
NAMES = tuple(ROWS)
PACKAGES = ("jax",)
RULES = ("bp", "pc", "epc", "ep", "dualprop", "mac", "pepita")
ACCURACIES = Path(__file__).parent / "results" / "settling.json"
FROZEN = "hidden layers frozen"  # the control of pepita, with its optimizer
OPTIMIZERS = {"adamw": altprop.optim.AdamW, "adam": altprop.optim.Adam, "sgd": altprop.optim.SGD}


def layers(widths: Sequence[int], seed: int = 0) -> nn.Sequential:
    """Dense layers with tanh between them."""
    torch.manual_seed(seed)
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*[layer for a, b in pairs for layer in (nn.Linear(a, b), nn.Tanh())][:-1])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, WIDTHS[0], generator=generator), torch.randint(10, (BATCH,), generator=generator)


def ours(rounds: int) -> Step:
    """One `net.step`: forward, rounds, updates, optimizer."""
    x, labels = batch()
    rule = f"pc(rounds={rounds}, rate={RATE})"
    net = altprop.compile(layers(WIDTHS), rule, example_inputs=(x,), optimizer=altprop.optim.AdamW(lr=LR))
    return lambda: net.step(x, labels)


def theirs(rounds: int) -> Step:
    """The same as a jitted function of JAX."""
    import jax
    from jax import numpy as jnp

    def felt(hs: Any, states: Any, target: Any) -> Any:
        found = [(1 - jnp.tanh(h) ** 2) * (jnp.tanh(h) - s) for h, s in zip(hs, states, strict=False)]
        return [*found, jax.nn.softmax(hs[-1]) - target]

    def step(weights: Any, moments: Any, x: Any, target: Any) -> Any:
        states = []
        for w, b in weights[:-1]:
            states.append(jnp.tanh((states[-1] if states else x) @ w.T + b))

        def relax(_: int, states: Any) -> Any:
            _, hs = at(weights, x, states)
            above = felt(hs, states, target)[1:]
            return [
                s - RATE * (s - jnp.tanh(h) + e @ w)
                for s, h, e, (w, _) in zip(states, hs, above, weights[1:], strict=False)
            ]

        inputs, hs = at(weights, x, jax.lax.fori_loop(0, rounds, relax, states))
        errors = felt(hs, inputs[1:], target)
        moved = [(e.T @ z / BATCH, e.mean(0)) for e, z in zip(errors, inputs, strict=True)]
        return _adamw(jax, jnp, weights, moments, moved)

    x, labels = batch()
    linear = [module for module in layers(WIDTHS) if isinstance(module, nn.Linear)]
    weights = [tuple(jnp.asarray(p.detach().numpy()) for p in (one.weight, one.bias)) for one in linear]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [weights, (zeros, jax.tree.map(jnp.zeros_like, weights), jnp.zeros(()))]
    run = jax.jit(step, donate_argnums=(0, 1))
    given, target = jnp.asarray(x.numpy()), jnp.asarray(torch.nn.functional.one_hot(labels, 10).float().numpy())

    def call() -> None:
        state[:] = run(*state, given, target)
        jax.block_until_ready(state)

    return call


def at(weights: Any, x: Any, states: Any) -> Any:
    """What each layer reads in a round, and its pre-activation."""
    inputs = [x, *states]
    return inputs, [z @ w.T + b for z, (w, b) in zip(inputs, weights, strict=True)]


def _adamw(jax: Any, jnp: Any, weights: Any, moments: Any, moved: Any) -> Any:
    first, second, count = moments
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, moved)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, moved)

    def move(w: Any, m: Any, v: Any) -> Any:
        size = jnp.sqrt(v / (1 - 0.999**count)) + 1e-8
        return w * (1 - LR * 0.01) - LR * (m / (1 - 0.9**count)) / size

    return jax.tree.map(move, weights, first, second), (first, second, count)


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures some of `NAMES`."""
    rows = {name: ratios(theirs(ROWS[name]), {"altprop pc": ours(ROWS[name])}, rounds, 3, name) for name in names}
    return (Table("Time of a step over JAX's", rows),)


def accuracy(rule: str, seed: int) -> float:
    """Test accuracy on digits, in %."""
    data = load("digits")
    x, test = (data.inputs(split.images).flatten(1) for split in (data.train, data.test))
    model = layers((64, 64, 64, 10), seed)
    recipe = altprop.rules.get("pepita" if rule == FROZEN else rule).about.recipe
    recipe = altprop.rules.Recipe(lr=3e-3) if rule == "bp" else recipe
    optimizer = OPTIMIZERS[recipe.optimizer](lr=recipe.lr, **({"momentum": recipe.momentum} if recipe.momentum else {}))
    followed = {"4": "bp", "*": "frozen"} if rule == FROZEN else rule
    net = altprop.compile(model, followed, example_inputs=(x[:2],), optimizer=optimizer, seed=seed)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        chosen = torch.randperm(len(x), generator=order)[: len(x) - len(x) % BATCH]
        for some in chosen.split(BATCH):
            net.step(x[some], data.train.labels[some])
    with torch.no_grad():
        return 100 * float((model(test).argmax(1) == data.test.labels).float().mean())


def keep(rule: str, found: list[float], path: Path = ACCURACIES) -> None:
    """Writes the accuracies of a rule beside those of the others."""
    held = json.loads(path.read_text("utf-8")) if path.exists() else {"accuracy": {}}
    settings = {"data": "digits", "epochs": EPOCHS, "batch": BATCH, "seeds": len(found)}
    path.write_text(json.dumps(settings | {"accuracy": held["accuracy"] | {rule: found}}, indent=1) + "\n", "utf-8")


def main() -> None:
    """Prints and keeps a line a rule, of those named or of all."""
    for rule in sys.argv[1:] or (*RULES, FROZEN):
        found = [accuracy(rule, seed) for seed in range(3)]
        keep(rule, found)
        print(f"{rule:20} {statistics.mean(found):.1f}, from {min(found):.1f} to {max(found):.1f}", flush=True)


if __name__ == "__main__":
    main()
