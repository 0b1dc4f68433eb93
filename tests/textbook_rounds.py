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


def error_predictive_coding(net: Network, x: Array, top: Top, scale: float, rounds: int, rate: float) -> Updates:
    """ePC: `z_i = f_i(z_{i-1}) + eps_i`, `eps_i -= rate (eps_i + dloss/dz_i)`, `dW_i = -(phi' eps_i)^T z_{i-1}`."""
    eps = [np.zeros_like(z) for z in net.forward(x)[1][:-1]]

    def shown() -> list[Array]:
        found: list[Array] = []
        for i, one in enumerate(eps):
            _, hs = layers_at(_first(net, i + 1), x, found)
            found.append(phi(net.activation, hs[-1]) + one)
        return found

    for _ in range(rounds):
        _, hs = layers_at(net, x, shown())
        error, moved = top(hs[-1]), []
        for i in reversed(range(net.last)):
            d = error @ net.weights[i + 1]
            moved.insert(0, eps[i] - rate * (eps[i] + d))
            error = phi_prime(net.activation, hs[i]) * d
        eps = moved
    inputs, hs = layers_at(net, x, shown())
    felt = [-phi_prime(net.activation, h) * one for h, one in zip(hs, eps, strict=False)]
    return local_products(net, inputs, [*felt, top(hs[-1])], scale)


def _first(net: Network, count: int) -> Network:
    return Network(net.weights[:count], net.biases[:count], net.activation)


def equilibrium_propagation(
    net: Network, x: Array, top: Top, scale: float, rounds: int, nudged: int, beta: float, rate: float
) -> Updates:
    """EP: `s_i += rate (phi(h_i + s_{i+1} W_{i+1}) - s_i)`, at the last hidden layer with `-beta e_L W_L`."""

    def settle(states: list[Array], count: int, nudge: float) -> list[Array]:
        for _ in range(count):
            _, hs = layers_at(net, x, states)
            above = [*states[1:], -nudge * top(hs[-1])]
            states = [
                s + rate * (phi(net.activation, h + heard @ weight) - s)
                for s, h, heard, weight in zip(states, hs, above, net.weights[1:], strict=False)
            ]
        return states

    free = settle(net.forward(x)[1][:-1], rounds, 0.0)
    near, far = settle(free, nudged, beta), settle(free, nudged, -beta)
    inputs, hs = layers_at(net, x, free)
    found = local_products(net, inputs, [*free, top(hs[-1])], scale)
    for name in found:
        if not name.endswith(str(net.last)):
            above, below = (local_products(net, [x, *s], [*s, hs[-1]], scale)[name] for s in (far, near))
            found[name] = (above - below) / (2 * beta)
    return found


def dual_propagation(net: Network, x: Array, top: Top, scale: float, rounds: int, beta: float) -> Updates:
    """DP: `z^+- = phi(h -+ beta d / 2)`; their mean goes up, `e = (z^- - z^+) / beta` goes down in the same sweep."""
    means = net.forward(x)[1][:-1]
    for turn in range(rounds + 1):
        inputs, hs = layers_at(net, x, means)
        errors = [top(hs[-1])]
        for i in reversed(range(net.last)):
            d = errors[0] @ net.weights[i + 1]
            plus, minus = phi(net.activation, hs[i] - beta * d / 2), phi(net.activation, hs[i] + beta * d / 2)
            errors.insert(0, (minus - plus) / beta)
            if turn < rounds:
                means[i] = (plus + minus) / 2
    return local_products(net, inputs, errors, scale)


def auxiliary_coordinates(
    net: Network, x: Array, top: Top, rounds: int, rate: float, mu: float, lam: float, step: float
) -> Updates:
    """MAC: `a_i -= rate (phi' e_{i+1} W_{i+1} - e_i)`, `e_i = h_i - a_i`; then `(A'A + lam I) dW_i' = A'e_i`."""
    a = net.forward(x)[0][:-1]
    for turn in range(rounds + 1):
        inputs, hs = layers_at(net, x, [phi(net.activation, one) for one in a])
        felt = [h - one for h, one in zip(hs, a, strict=False)]
        if turn < rounds:
            above = [*felt[1:], top(hs[-1]) / mu]
            moved = [
                phi_prime(net.activation, one) * (e @ w) for one, e, w in zip(a, above, net.weights[1:], strict=True)
            ]
            a = [one - rate * (d - e) for one, d, e in zip(a, moved, felt, strict=True)]
    found: Updates = {}
    for i, (z, e) in enumerate(zip(inputs, [*felt, step * top(hs[-1])], strict=True)):
        rows = np.hstack([z, np.ones((len(z), 1))]) if net.biases else z
        solved = np.linalg.solve(rows.T @ rows + lam * np.eye(rows.shape[1]), rows.T @ e).T
        found[f"W{i}"] = solved[:, : z.shape[1]]
        if net.biases:
            found[f"b{i}"] = solved[:, -1]
    return found


def pepita(net: Network, x: Array, top: Top, scale: float, feedback: Array) -> Updates:
    """PEPITA: `x' = x + e_L F`; `dW_i = (z_i - z_i')^T z_{i-1}'` of hidden layers, `dW_L = e_L^T z_{L-1}'`."""
    zs = net.forward(x)[1]
    error = top(zs[-1])
    entered = x + error @ feedback
    seconds = net.forward(entered)[1]
    errors = [z - second for z, second in zip(zs, seconds, strict=True)]
    return local_products(net, [entered, *seconds[:-1]], [*errors[:-1], error], scale)
