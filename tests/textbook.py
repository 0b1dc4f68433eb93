"""The learning rules as a textbook writes them: plain NumPy in float64, no compiler and no torch.

Rows are samples. A *network* is dense layers `h = z W^T + b`, `z = phi(h)`; the last one has no activation. Errors
are per sample, of the loss summed over samples; `scale` is 1/N where the loss is a mean.
"""

import dataclasses

import numpy as np

Array = np.ndarray
Updates = dict[str, Array]


def phi(name: str, h: Array) -> Array:
    """The activation."""
    if name == "tanh":
        return np.tanh(h)
    if name == "relu":
        return np.maximum(h, 0.0)
    if name == "elu":
        return np.where(h > 0.0, h, np.expm1(np.minimum(h, 0.0)))
    if name == "sigmoid":
        return 1.0 / (1.0 + np.exp(-h))
    assert name == "sign"
    return np.sign(h)


def phi_prime(name: str, h: Array) -> Array:
    """Its derivative."""
    if name == "tanh":
        return 1.0 - np.tanh(h) ** 2
    assert name in ("relu", "sign")
    return (h > 0.0).astype(h.dtype) if name == "relu" else np.zeros_like(h)


def softmax_error(output: Array, labels: Array) -> Array:
    """Gradient of cross-entropy, of each sample, at the output: `softmax - onehot`."""
    powers = np.exp(output - output.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True) - np.eye(output.shape[1])[labels]


def square_error(output: Array, target: Array, mean: bool) -> Array:
    """Gradient of the squares of each sample; as a mean, torch divides by the number of outputs as well."""
    return 2.0 * (output - target) / (output.shape[1] if mean else 1)


@dataclasses.dataclass
class Network:
    """Dense layers. `weights[i]` is (outputs, inputs); `biases` is empty for none."""

    weights: list[Array]
    biases: list[Array]
    activation: str

    @property
    def last(self) -> int:
        return len(self.weights) - 1

    def forward(self, x: Array) -> tuple[list[Array], list[Array]]:
        """Returns pre-activations `h[i]`, and activities `z[i]` with `z[-1]` the output; `z[i]` is read by i + 1."""
        hs: list[Array] = []
        zs: list[Array] = []
        z = x
        for i, weight in enumerate(self.weights):
            h = z @ weight.T + (self.biases[i] if self.biases else 0.0)
            z = h if i == self.last else phi(self.activation, h)
            hs.append(h)
            zs.append(z)
        return hs, zs

    def products(self, x: Array, zs: list[Array], errors: list[Array], scale: float) -> Updates:
        """The local products: `dW_i = e_i^T z_k`, `db_i = sum e_i`."""
        found: Updates = {}
        for i, error in enumerate(errors):
            source = x if i == 0 else zs[i - 1]
            found[f"W{i}"] = scale * error.T @ source
            if self.biases:
                found[f"b{i}"] = scale * error.sum(0)
        return found


def feedback_alignment(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    """FA: `d_i = e_{i+1} B_{i+1}` with `B` of the shape of the weight; `feedback[i]` stands into layer i."""
    hs, zs = net.forward(x)
    errors = [top]
    for i in reversed(range(net.last)):
        d = errors[0] @ feedback[i]
        errors.insert(0, phi_prime(net.activation, hs[i]) * d)
    return net.products(x, zs, errors, scale)


def direct_feedback_alignment(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float) -> Updates:
    """DFA: `d_i = e_L B_i`."""
    hs, zs = net.forward(x)
    hidden = [phi_prime(net.activation, hs[i]) * (top @ feedback[i]) for i in range(net.last)]
    return net.products(x, zs, [*hidden, top], scale)


def random_target_projection(
    net: Network, x: Array, top: Array, target: Array, feedback: dict[int, Array], scale: float
) -> Updates:
    """DRTP: `d_i = t B_i`, with the target `t` in the shape of the output."""
    hs, zs = net.forward(x)
    hidden = [phi_prime(net.activation, hs[i]) * (target @ feedback[i]) for i in range(net.last)]
    return net.products(x, zs, [*hidden, top], scale)


@dataclasses.dataclass
class Alignment:
    """Settings of rec-LRA, and its wiring.

    Attributes:
        source: the layer that layer i hears from.
        exact: layers inside a block that learn by backpropagation of the error of the layer above.
    """

    source: dict[int, int]
    beta: float
    gamma: float
    learning: str
    exact: frozenset[int] = frozenset()


def rec_lra(net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float, how: Alignment) -> Updates:
    """rec-LRA: `d_i = e_j E_ji`, `y_i = phi(h_i - beta d_i)`, `e_i = z_i - y_i`, `dW_i = e_i^T z_k`.

    `E` is (source units, target units); `E{i}` in the result is the direction to descend along.
    """
    hs, zs = net.forward(x)
    errors: dict[int, Array] = {net.last: top}
    moved: Updates = {}
    for i in reversed(range(net.last)):
        above = errors[how.source[i]]
        if i in how.exact:
            errors[i] = phi_prime(net.activation, hs[i]) * (above @ net.weights[i + 1])
            continue
        d = above @ feedback[i]
        errors[i] = zs[i] - phi(net.activation, hs[i] - how.beta * d)
        own = how.beta * phi_prime(net.activation, hs[i] - how.beta * d) * errors[i]
        factors = {"transpose": zs[i], "hebbian": d, "error": -errors[i], "discrepancy": own, "fixed": None}
        factor = factors[how.learning]
        if factor is not None:
            moved[f"E{i}"] = scale * how.gamma * above.T @ factor
    return moved | net.products(x, zs, [errors[i] for i in range(net.last + 1)], scale)


def algorithm_1(
    weights: list[Array], x: Array, top: Array, feedback: dict[int, Array], beta: float, gamma: float, gap: int
) -> Updates:
    """Algorithm 1 of the rec-LRA paper, with the index of d from Eq. 6; layers count from 1, `z[0] = x`.

    `h_l = W_l z_{l-1}`, plus `z_{l-g}` where g divides l. Layers that g divides hear from the output, all others
    from the next one. Updates are sums over samples.
    """
    zs, hs = [x], [x]
    last = len(weights)
    for layer in range(1, last + 1):
        skip = zs[layer - gap] if layer % gap == 0 else 0.0
        hs.append(zs[layer - 1] @ weights[layer - 1].T + skip)
        zs.append(hs[-1] if layer == last else np.tanh(hs[-1]))
    errors = {last: top}
    found: Updates = {}
    for layer in range(last - 1, 0, -1):
        above = errors[last] if layer % gap == 0 else errors[layer + 1]
        d = above @ feedback[layer]
        errors[layer] = zs[layer] - np.tanh(hs[layer] - beta * d)
        found[f"E{layer}"] = gamma * above.T @ d
    for layer in range(1, last + 1):
        found[f"W{layer}"] = errors[layer].T @ zs[layer - 1]
    return found


def residual_output(weights: list[Array], x: Array, gap: int) -> Array:
    """The output of the network of Algorithm 1."""
    zs = [x]
    for layer, weight in enumerate(weights, start=1):
        h = zs[layer - 1] @ weight.T + (zs[layer - gap] if layer % gap == 0 else 0.0)
        zs.append(h if layer == len(weights) else np.tanh(h))
    return zs[-1]


def pad_image(x: Array, padding: int) -> Array:
    """Zeros around the last two dimensions."""
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def convolve(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """What deep learning calls a convolution: `h[n,o,y,x] = sum_cij W[o,c,i,j] x[n,c,y s+i,x s+j]`."""
    padded = pad_image(x, padding)
    high, wide = weight.shape[2:]
    rows = (padded.shape[2] - high) // stride + 1
    columns = (padded.shape[3] - wide) // stride + 1
    h = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for i in range(high):
        for j in range(wide):
            patch = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            h += np.einsum("oc,ncyx->noyx", weight[:, :, i, j], patch)
    return h


def correlate(x: Array, error: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """`dW[o,c,i,j] = sum_nyx e[n,o,y,x] x[n,c,y s+i,x s+j]`."""
    padded = pad_image(x, padding)
    rows, columns = error.shape[2:]
    found = np.zeros(shape)
    for i in range(shape[2]):
        for j in range(shape[3]):
            patch = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
            found[:, :, i, j] = np.einsum("noyx,ncyx->oc", error, patch)
    return found


def normalise(h: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """Batch norm in training; returns its result, the normalised values, and the deviation of each channel."""
    axes = (0, 2, 3)
    centre = h - h.mean(axes, keepdims=True)
    deviation = np.sqrt((centre**2).mean(axes, keepdims=True) + eps)
    normal = centre / deviation
    return normal * scale[:, None, None] + shift[:, None, None], normal, deviation


def normalise_back(error: Array, normal: Array, deviation: Array, scale: Array) -> Array:
    """The local product of batch norm: an error at its result, taken to its input."""
    axes = (0, 2, 3)
    g = error * scale[:, None, None]
    g = g - g.mean(axes, keepdims=True) - normal * (g * normal).mean(axes, keepdims=True)
    return g / deviation


def kolen_pollack(
    net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float, decay: float
) -> Updates:
    """KP: as feedback alignment; `B_i`, which stands for `W_{i+1}`, gets its update, and both decay."""
    found = feedback_alignment(net, x, top, feedback, scale)
    moved = {f"E{i}": found[f"W{i + 1}"] + decay * feedback[i] for i in feedback}
    for i, weight in enumerate(net.weights):
        found[f"W{i}"] = found[f"W{i}"] + decay * weight
    return found | moved


def direct_kolen_pollack(
    net: Network, x: Array, top: Array, feedback: dict[int, Array], scale: float, decay: float
) -> Updates:
    """DKP: as direct feedback alignment; `dB_i = e_L^T z_i`, and both decay."""
    found = direct_feedback_alignment(net, x, top, feedback, scale)
    _, zs = net.forward(x)
    moved = {f"E{i}": scale * top.T @ zs[i] + decay * feedback[i] for i in feedback}
    for i, weight in enumerate(net.weights):
        found[f"W{i}"] = found[f"W{i}"] + decay * weight
    return found | moved


def mirror(net: Network, noise: dict[int, Array], feedback: dict[int, Array], scale: float, decay: float) -> Updates:
    """Weight mirror: noise `x` at the input of layer i + 1, its pre-activation `y`: `dB = N decay B - y^T x`."""
    found: Updates = {}
    for i, x in noise.items():
        y = x @ net.weights[i + 1].T + (net.biases[i + 1] if net.biases else 0.0)
        found[f"E{i}"] = scale * (len(x) * decay * feedback[i] - y.T @ x)
    return found


def transposed_convolution(error: Array, filters: Array, stride: int, size: int) -> Array:
    """`d[n,c,y s+i,x s+j] += e[n,o,y,x] E[o,c,i,j]`, then cut alike on both sides to `size`."""
    samples, _, rows, columns = error.shape
    _, channels, high, wide = filters.shape
    made = np.zeros((samples, channels, (rows - 1) * stride + high, (columns - 1) * stride + wide))
    for i in range(high):
        for j in range(wide):
            part = np.einsum("noyx,oc->ncyx", error, filters[:, :, i, j])
            made[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride] += part
    top, left = (made.shape[2] - size) // 2, (made.shape[3] - size) // 2
    return made[:, :, top : top + size, left : left + size]


def discrepancy_error(v: Array, p: float, q: float, mixed: float, kappa: float) -> Array:
    """Derivative of `kappa ||v||_p^q / q` of each sample by `v = z - y`, mixed with the sign."""
    norm = (np.abs(v) ** p).sum(tuple(range(1, v.ndim)), keepdims=True) ** (1.0 / p)
    e = norm ** (q - p) * np.abs(v) ** (p - 1.0) * np.sign(v)
    return kappa * (mixed * e + (1.0 - mixed) * np.sign(v))


def project(direction: Array, largest: float) -> Array:
    """`c D / ||D||` where the norm is `c` or more."""
    norm = np.sqrt((direction**2).sum())
    return direction * largest / norm if norm >= largest else direction


def oja(weight: Array, bias: Array, x: Array, z: Array, rate: float) -> tuple[Array, Array]:
    """Oja's rule, to descend along: `-r (z^T x - diag(sum z^2) W) / max(mean z^2, 1)`; a bias has the input 1."""
    energy = (z**2).sum(0)
    largest = np.maximum(energy / len(z), 1.0)
    moved = -rate * (z.T @ x - energy[:, None] * weight) / largest[:, None]
    return moved, -rate * (z.sum(0) - energy * bias) / largest
