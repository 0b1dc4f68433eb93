"""Time of a step of predictive coding, by ours and by libraries, over jpc's, at its faster of two ways.

The step is that of the benchmark `rounds`, with 20 rounds, as the libraries' own tutorials write it. All take the
square distance per layer, cross-entropy at the output, and AdamW (of optax). jpc has two forms: `jpc.make_pc_step`,
which integrates the activities' flow, here by Euler's method with steps of a constant size, so that rounds are rounds;
and a loop of `jpc.update_pc_activities`, a jitted call a round. pcx writes its rounds out in one jitted step.

It needs an environment of its own: `pip install pcx diffrax`, jpc from https://github.com/thebuckleylab/jpc, and a JAX
of at most 0.5.2, as jpc wants it. On that the function by hand takes longer than on a later one.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import rounds as by_hand
from benchmarks.form import Table
from benchmarks.interleaved import Step, ratios

Sizes = tuple[int, ...]
Batch = tuple[torch.Tensor, torch.Tensor]


def _given(batch: Batch, classes: int) -> tuple[Any, Any]:
    from jax import numpy as jnp

    x, labels = batch
    return jnp.asarray(x.numpy()), jnp.asarray(torch.nn.functional.one_hot(labels, classes).float().numpy())


def jpc_flow(widths: Sizes, batch: Batch, rounds: int, rate: float, lr: float) -> Step:
    """`jpc.make_pc_step`."""
    import jax
    import jpc
    from diffrax import ConstantStepSize, Euler

    x, target = _given(batch, widths[-1])
    held, optimizer = _jpc_net(widths, lr)
    euler = {"ode_solver": Euler(), "max_t1": rounds, "dt": 1.0, "stepsize_controller": ConstantStepSize()}

    def call() -> None:
        found = jpc.make_pc_step(held[0], optimizer, held[1], target, input=x, loss_id="ce", **euler)
        held[:] = found["model"], found["opt_state"]
        jax.block_until_ready(held[1])

    return call


def jpc_loop(widths: Sizes, batch: Batch, rounds: int, rate: float, lr: float) -> Step:
    """`jpc.update_pc_activities` in a loop, then `jpc.update_pc_params`."""
    import jax
    import jpc
    import optax

    x, target = _given(batch, widths[-1])
    held, optimizer = _jpc_net(widths, lr)
    descent = optax.sgd(rate * len(x))  # its energy is a mean over samples

    def call() -> None:
        activities = jpc.init_activities_with_ffwd(held[0], x)
        state, given = descent.init(activities), {"output": target, "input": x, "loss_id": "ce"}
        for _ in range(rounds):
            found = jpc.update_pc_activities((held[0], None), activities, descent, state, **given)
            activities, state = found["activities"], found["opt_state"]
        found = jpc.update_pc_params((held[0], None), activities, optimizer, held[1], **given)
        held[:] = found["model"], found["opt_state"]
        jax.block_until_ready(held[1])

    return call


def _jpc_net(widths: Sizes, lr: float) -> tuple[list[Any], Any]:
    import equinox
    import jax
    import jpc
    import optax

    sizes = {"input_dim": widths[0], "width": widths[1], "depth": len(widths) - 1, "output_dim": widths[-1]}
    model = jpc.make_mlp(jax.random.PRNGKey(0), **sizes, act_fn="tanh", use_bias=True)
    optimizer = optax.adamw(lr)
    return [model, optimizer.init((equinox.filter(model, equinox.is_array), None))], optimizer


def pcx_step(widths: Sizes, batch: Batch, rounds: int, rate: float, lr: float) -> Step:
    """The step of pcx's first tutorial."""
    import jax
    import optax
    import pcx
    from pcx import nn, utils

    pcx.RKG.seed(0)
    x, target = _given(batch, widths[-1])
    model, train = _pcx_model(widths), _pcx_train()
    weights = utils.Optim(lambda: optax.adamw(lr), utils.M(nn.LayerParam)(model))
    activities = utils.Optim(lambda: optax.sgd(rate))

    def call() -> None:
        train(rounds, x, target, model=model, weights=weights, activities=activities)
        jax.block_until_ready([layer.nn.weight.get() for layer in model.layers])

    return call


def _pcx_model(widths: Sizes) -> Any:
    import jax
    from pcx import nn
    from pcx import predictive_coding as coding

    class Model(coding.EnergyModule):  # type: ignore[misc,unused-ignore]  # pcx has no types
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
            self.vodes = [coding.Vode() for _ in widths[2:]] + [coding.Vode(coding.ce_energy)]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any, y: Any) -> Any:
            for vode, layer in zip(self.vodes[:-1], self.layers[:-1], strict=True):
                x = vode(jax.numpy.tanh(layer(x)))
            self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return self.vodes[-1].get("u")

    return Model()


def _pcx_train() -> Any:
    import jax
    from pcx import functional, nn, utils
    from pcx import predictive_coding as coding

    cache = coding.VodeParam.Cache

    def batched() -> Any:
        return utils.M(coding.VodeParam | cache).to((None, 0))

    def states() -> Any:
        return utils.M_hasnot(coding.VodeParam, frozen=True)

    @functional.vmap(batched(), in_axes=(0, 0), out_axes=0)
    def forward(x: Any, y: Any, *, model: Any) -> Any:
        return model(x, y)

    @functional.vmap(batched(), in_axes=(0,), out_axes=(None, 0), axis_name="batch")
    def energy(x: Any, *, model: Any) -> Any:
        y = model(x, None)
        return jax.lax.psum(model.energy(), "batch"), y

    def gradient(mask: Any, x: Any, model: Any) -> Any:
        with utils.step(model, clear_params=cache):
            found = functional.value_and_grad(mask.to([False, True]), has_aux=True)(energy)(x, model=model)
        return found[1]["model"]

    @functional.jit(static_argnums=0)
    def train(times: int, x: Any, y: Any, *, model: Any, weights: Any, activities: Any) -> None:
        model.train()
        with utils.step(model, coding.STATUS.INIT, clear_params=cache):
            forward(x, y, model=model)
        activities.init(states()(model))
        for _ in range(times):
            activities.step(model, gradient(states(), x, model))
        activities.clear()
        weights.step(model, gradient(utils.M(nn.LayerParam), x, model), scale_by=1.0 / x.shape[0])

    return train


STEPS: dict[str, Callable[[Sizes, Batch, int, float, float], Step]] = {
    "jpc": jpc_flow,
    "jpc, a call a round": jpc_loop,
    "pcx": pcx_step,
}
"""What makes a step, by name; the first is what the others are compared with."""
NAMES = ("20 rounds",)
PACKAGES = ("jax", "jpc", "pcx")


def measure(names: Sequence[str], rounds: int, *, compiled: bool) -> tuple[Table, ...]:
    """Measures the one row."""
    base, *others = (make(by_hand.WIDTHS, by_hand.batch(), 20, by_hand.RATE, by_hand.LR) for make in STEPS.values())
    candidates = {
        "altprop pc": by_hand.ours(20),
        **dict(zip(list(STEPS)[1:], others, strict=True)),
        "JAX by hand": by_hand.theirs(20),
    }
    rows = {name: ratios(base, candidates, rounds, 3, "beside libraries") for name in names}
    return (Table("Time of a step over jpc's", rows),)
