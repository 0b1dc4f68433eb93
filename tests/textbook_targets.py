"""Local losses and target propagation as a textbook writes them: plain NumPy in float64.

Terms, and the meaning of `scale`, are those of `textbook`.
"""

import dataclasses

import numpy as np
import textbook
from textbook import Array, Network, Updates, phi_prime

EPSILON = 1e-8


def output_error(loss: str, prediction: Array, target: Array, mean: bool) -> Array:
    """Gradient of the loss of each sample; targets of cross-entropy are one-hot."""
    if loss == "mse":
        return textbook.square_error(prediction, target, mean)
    return textbook.softmax_error(prediction, target.argmax(1))


def similarity(features: Array) -> tuple[Array, Array, Array]:
    """Adjusted cosines between samples; returns them, the centred features and their norms."""
    centred = features - features.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1, keepdims=True))
    normal = centred / (EPSILON + norms)
    return normal @ normal.T, centred, norms


def similarity_back(features: Array, wanted: Array) -> Array:
    """Gradient of `sum (S - wanted)^2` at the features."""
    found, centred, norms = similarity(features)
    long = EPSILON + norms
    at_normal = 4.0 * (found - wanted) @ (centred / long)
    along = (at_normal * centred).sum(1, keepdims=True)
    at_centred = at_normal / long - centred * along / (np.maximum(norms, 1e-300) * long**2)
    return at_centred - at_centred.mean(1, keepdims=True)


def local_loss(
    net: Network,
    x: Array,
    top: Array,
    target: Array,
    own: dict[str, Array],
    scale: float,
    how: tuple[float, str, bool],
) -> Updates:
    """Greedy learning from local losses. `own` holds "A{i}", "a{i}" and "C{i}"; `how` is (beta, loss, mean)."""
    beta, loss, mean = how
    hs, zs = net.forward(x)
    errors: list[Array] = []
    moved: Updates = {}
    for i in range(net.last):
        d = np.zeros_like(zs[i])
        if beta < 1:
            classifier = own[f"A{i}"]
            g = (1 - beta) * output_error(loss, zs[i] @ classifier.T + own[f"a{i}"], target, mean)
            d += g @ classifier
            moved |= {f"A{i}": scale * g.T @ zs[i], f"a{i}": scale * g.sum(0)}
        if beta > 0:
            projection = own[f"C{i}"]
            g = beta / len(x) * similarity_back(zs[i] @ projection.T, similarity(target)[0])
            d += g @ projection
            moved[f"C{i}"] = scale * g.T @ zs[i]
        errors.append(phi_prime(net.activation, hs[i]) * d)
    return moved | net.products(x, zs, [*errors, top], scale)


@dataclasses.dataclass
class Targets:
    """A rule's name and settings; `exact_top` is whether the last hidden layer hears the exact gradient."""

    rule: str
    step: float
    sigma: float
    exact_top: bool


def target_propagation(
    net: Network, x: Array, top: Array, own: dict[str, Array], noise: list[Array], scale: float, how: Targets
) -> Updates:
    """Target propagation. `own` holds "V{i}" (source units, units) and "v{i}".

    Regions and inverses descend along half the squared distance; "ddtp" divides the latter by sigma^2.
    """
    hs, zs = net.forward(x)
    wanted = {net.last: zs[net.last] - how.step * top}
    moved: Updates = {}
    errors = [top]
    for i in reversed(range(net.last)):
        above = net.last if how.rule == "ddtp" else i + 1
        near = zs[i] + how.sigma * noise[i]
        code = forward_again(net, near, i, above)
        if how.exact_top and i == net.last - 1:
            wanted[i] = zs[i] - how.step * top @ net.weights[net.last]
        elif how.rule == "ddtp":
            wanted[i] = zs[i] + (wanted[above] - zs[above]) @ own[f"V{i}"]
            missed = (code - zs[above]) @ own[f"V{i}"] - how.sigma * noise[i]
            moved[f"V{i}"] = scale * (code - zs[above]).T @ missed / how.sigma**2
        else:
            correction = zs[i] - inverse(net, zs[above], own, i) if how.rule == "dtp" else 0.0
            wanted[i] = inverse(net, wanted[above], own, i) + correction
            slope = phi_prime(net.activation, code @ own[f"V{i}"] + own[f"v{i}"])
            missed = slope * (inverse(net, code, own, i) - near)
            moved |= {f"V{i}": scale * code.T @ missed, f"v{i}": scale * missed.sum(0)}
        errors.insert(0, phi_prime(net.activation, hs[i]) * (zs[i] - wanted[i]))
    return moved | net.products(x, zs, errors, scale)


def inverse(net: Network, above: Array, own: dict[str, Array], i: int) -> Array:
    """`G_i`: from what layer i + 1 made to what layer i may have made."""
    return textbook.phi(net.activation, above @ own[f"V{i}"] + own[f"v{i}"])


def forward_again(net: Network, z: Array, start: int, end: int) -> Array:
    """What layer `end` makes of an activity of layer `start`."""
    for j in range(start + 1, end + 1):
        z = z @ net.weights[j].T + (net.biases[j] if net.biases else 0.0)
        z = z if j == net.last else textbook.phi(net.activation, z)
    return z
