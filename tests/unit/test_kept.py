"""Models share a capture where their forwards are the same, and nowhere else."""

import copy
from collections.abc import Callable

import kept
import pytest
import torch
from torch import nn

X = torch.zeros(3, 4)


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 5), nn.BatchNorm1d(5))


class Scaled(nn.Module):
    """A layer, and a tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = torch.ones(4)


def test_models_that_differ_in_numbers_alone_are_alike() -> None:
    one = kept.form_of(layers(), (X,), {"mask": [X]})
    assert one == kept.form_of(layers(), (torch.ones(3, 4),), {"mask": [X + 1]})
    assert len({one, kept.form_of(copy.deepcopy(layers()), (X,), {"mask": [X]})}) == 1


def tie(model: nn.Sequential) -> None:
    model.append(nn.Linear(5, 5))
    model[4].weight = model[2].weight


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.eval(),
        lambda m: m[3].eval(),
        lambda m: m.double(),
        lambda m: m[0].weight.requires_grad_(False),
        lambda m: setattr(m[1], "p", 0.25),
        lambda m: setattr(m[1], "p", 1),
        lambda m: m[2].register_parameter("bias", None),
        lambda m: m.append(nn.Tanh()),
        lambda m: m[2].register_forward_hook(lambda *_: None),
        lambda m: setattr(m, "note", {}),
        lambda m: setattr(m, "forward", m.forward),
    ],
)
def test_whatever_else_differs_tells_them_apart(change: Callable[[nn.Sequential], None]) -> None:
    model = layers()
    change(model)
    assert kept.form_of(model, (X,), {}) != kept.form_of(layers(), (X,), {})


def test_shared_weights_tell_models_apart() -> None:
    tied, apart = layers(), layers()
    tie(tied)
    apart.append(nn.Linear(5, 5))
    assert kept.form_of(tied, (X,), {}) != kept.form_of(apart, (X,), {})


@pytest.mark.parametrize("inputs", [(X.double(),), (X[:2],), (X, X), ([X],), (X.T.contiguous().T,)])
def test_so_do_inputs(inputs: tuple[torch.Tensor, ...]) -> None:
    assert kept.form_of(layers(), inputs, {}) != kept.form_of(layers(), (X,), {})
    assert kept.form_of(layers(), (), {"input": X}) != kept.form_of(layers(), (X,), {})


def test_tensors_that_a_graph_would_hold_are_not_alike() -> None:
    model = Scaled()
    assert kept.form_of(model, (X,), {}) == kept.form_of(model, (X,), {})
    assert kept.form_of(model, (X,), {}) != kept.form_of(Scaled(), (X,), {})


def test_the_oldest_are_let_go() -> None:
    store: dict[object, int] = {}
    for number in range(5):
        kept.keep(store, number, number, 3)
    assert list(store) == [2, 3, 4]
