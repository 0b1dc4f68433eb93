"""Local losses and target propagation as a textbook writes them: plain NumPy in float64.

Terms, and the meaning of `scale`, are those of `textbook`.
"""

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
