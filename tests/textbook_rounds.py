"""Rules that settle, as a textbook writes them: plain NumPy in float64. See `textbook` for networks and errors."""

from collections.abc import Callable

import numpy as np
from textbook import Array, Network, Updates, phi, phi_prime

Top = Callable[[Array], Array]
"""From an output to the gradient of the loss there, of each sample."""


def layers_at(net: Network, x: Array, states: list[Array]) -> tuple[list[Array], list[Array]]:
    """Inputs and pre-activations of all layers, where hidden activities are `states`."""
    inputs = [x, *states]
    biases = net.biases or [np.zeros(len(weight)) for weight in net.weights]
    return inputs, [z @ weight.T + bias for z, weight, bias in zip(inputs, net.weights, biases, strict=True)]


def local_products(net: Network, inputs: list[Array], errors: list[Array], scale: float) -> Updates:
    return net.products(inputs[0], inputs[1:], errors, scale)


def predictive_coding(
    net: Network, x: Array, top: Top, scale: float, rounds: int, rate: float, fixed: bool = False
) -> Updates:
    """PC: `eps_i = x_i - f_i`, `x_i -= rate (eps_i + e_{i+1} W_{i+1})`, `e_i = -phi' eps_i`, `dW_i = e_i^T x_{i-1}`."""
    states = net.forward(x)[1][:-1]
    before = list(states)

    def errors() -> tuple[list[Array], list[Array], list[Array]]:
        inputs, hs = layers_at(net, x, before if fixed else states)
        eps = [state - phi(net.activation, h) for state, h in zip(states, hs, strict=False)]
        felt = [-phi_prime(net.activation, h) * one for h, one in zip(hs, eps, strict=False)]
        return inputs, eps, [*felt, top(hs[-1])]

    for _ in range(rounds):
        _, eps, felt = errors()
        states = [
            state - rate * (one + above @ weight)
            for state, one, above, weight in zip(states, eps, felt[1:], net.weights[1:], strict=True)
        ]
    inputs, _, felt = errors()
    return local_products(net, inputs, felt, scale)
