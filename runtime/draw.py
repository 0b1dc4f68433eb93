"""Drawing feedback: each tensor is a function of the seed and its connection's name alone.

All is drawn in float32 on the CPU, by generators of its own; no global random state is touched. What starts as a weight
is a copy of it.
"""

import hashlib
from collections.abc import Callable, Mapping

import torch

from altprop.ir.graph import FeedbackParameter
from altprop.ir.starts import WEIGHTS

Weights = Mapping[str, torch.Tensor]


def draw(seed: int, spec: FeedbackParameter, weights: Weights | None = None) -> torch.Tensor:
    """Draws a feedback tensor.

    Args:
        seed: of the net.
        spec: what to draw.
        weights: the model's parameters by name, for feedback that starts as one of them or as their product.
    """
    weights = weights or {}
    if spec.start.kind != WEIGHTS:
        return _DRAWS[spec.distribution](seed, spec, weights)
    copy = weights[spec.stands_for].detach().clone()
    if not spec.start.noise:
        return copy
    return copy.add_(_DRAWS[spec.distribution](seed, spec, weights).to(copy), alpha=spec.start.noise)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _normal(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    return torch.randn(spec.shape, generator=_generator(seed, spec.name)).mul_(spec.scale)


def _balanced(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    """Normal numbers, less their mean over the sources; those of a single source stay."""
    drawn = _normal(seed, spec, weights)
    return drawn - drawn.mean(0) if len(drawn) > 1 else drawn


def _uniform(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    return torch.rand(spec.shape, generator=_generator(seed, spec.name)).mul_(2).sub_(1).mul_(spec.scale)


def _bits(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    return torch.randint(256, spec.shape, generator=_generator(seed, spec.name), dtype=torch.uint8)


def _product(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    """The product of the forward weights, the last one first."""
    matrices = [weights[name].detach() for name in spec.settings["weights"]]
    made = matrices[0]
    for matrix in matrices[1:]:
        made = made @ matrix
    return (made * spec.scale).reshape(spec.shape)


def _sparse_indices(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    """For each unit the sources that it hears, without repetition: (nonzeros, units)."""
    nonzeros, units = spec.shape
    generator = _places(seed, spec)
    if not spec.settings["rank"]:
        scores = torch.rand(units, spec.settings["sources"], generator=generator)
        return scores.topk(nonzeros).indices.t().contiguous()
    sets, picked = _sets(generator, spec)
    return sets[picked].t().contiguous()


def _sparse_values(seed: int, spec: FeedbackParameter, weights: Weights) -> torch.Tensor:
    """The values at these places: uniform; with a rank, those of `sum_k mask_k u_k v_k^T` at a deviation of `scale`."""
    rank = spec.settings["rank"]
    if not rank:
        return _uniform(seed, spec, weights)
    sets, picked = _sets(_places(seed, spec), spec)
    generator = _generator(seed, spec.name)
    left = torch.rand(rank, spec.settings["sources"], generator=generator) * 2 - 1
    right = torch.rand(spec.shape[1], generator=generator) * 2 - 1
    values = left.gather(1, sets)[picked].t() * right
    return values * (spec.scale / values.pow(2).mean().sqrt())


def _places(seed: int, spec: FeedbackParameter) -> torch.Generator:
    """The generator of the places, the same for indices and values."""
    return _generator(seed, f"{spec.connection}:places")


def _sets(generator: torch.Generator, spec: FeedbackParameter) -> tuple[torch.Tensor, torch.Tensor]:
    """`rank` sets of sources that use all alike, and the set that each unit picks."""
    (nonzeros, units), sources, rank = spec.shape, spec.settings["sources"], spec.settings["rank"]
    used = torch.zeros(sources)
    sets = []
    for _ in range(rank):
        chosen = (used + 0.5 * torch.rand(sources, generator=generator)).topk(nonzeros, largest=False).indices
        used[chosen] += 1
        sets.append(chosen)
    return torch.stack(sets), torch.randint(rank, (units,), generator=generator)


Draw = Callable[[int, FeedbackParameter, Weights], torch.Tensor]

_DRAWS: dict[str, Draw] = {
    "normal": _normal,
    "balanced": _balanced,
    "kaiming_normal": _normal,
    "xavier_normal": _normal,
    "uniform": _uniform,
    "kaiming_uniform": _uniform,
    "xavier_uniform": _uniform,
    "bits": _bits,
    "product": _product,
    "sparse_indices": _sparse_indices,
    "sparse_values": _sparse_values,
}
