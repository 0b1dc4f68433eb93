"""A kind of feedback that the library does not know, in this one file: one number for each source and unit group."""

from collections.abc import Iterator, Sequence

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.rules.feedback import DIRECT, DirectKind, Part, Place, add_kind
from altprop.rules.feedback.kind import Options, Tensors, drawn, sizes


class Shared(DirectKind):
    """The message of every unit is the same: a matrix with one column."""

    name = "shared"

    def parts(self, place: Place) -> Sequence[Part]:
        """One number a source."""
        return [drawn(place, (sizes(place, self.name)[0], 1))]

    def project(self, error: torch.Tensor, tensors: Tensors, activity: torch.Tensor, options: Options) -> torch.Tensor:
        """`e b`, for all units."""
        return torch.mm(error, tensors[""]).expand(activity.shape)


@pytest.fixture(scope="module", autouse=True)
def kind() -> Iterator[None]:
    add_kind(Shared())
    yield
    del DIRECT["shared"]


def test_it_stands_on_connections_learns_and_is_saved() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.randint(3, (4,))
    net = kept.compile(model, "dkp(kind='shared', scale=2.0)", example_inputs=(x,))
    matrix = net.feedback["2->0"]
    assert matrix.shape == (3, 1)
    net.backward(x, y)
    z = torch.tanh(model[0](x))
    error = torch.softmax(model[2](z), 1) - nn.functional.one_hot(y, 3)
    moved = model[0].weight.grad
    assert isinstance(moved, torch.Tensor)
    assert torch.allclose(moved, ((1 - z**2) * (error @ matrix)).T @ x / 4, rtol=0, atol=1e-10)
    # The outer product is derived from the message: the sum over units of what a dense matrix would get.
    assert matrix.grad is not None
    assert torch.allclose(matrix.grad, (error.T @ z).sum(1, keepdim=True) / 4, rtol=0, atol=1e-10)
    assert "2->0 (shared)" in str(net.explain())


def test_a_plan_with_an_unknown_kind_lists_it() -> None:
    connection = altprop.Connection("2", "0", altprop.Feedback("nothing"))
    plan = altprop.WiringPlan((altprop.RegionPlan("0", "dfa"), altprop.RegionPlan("2", "bp")), (connection,))
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(altprop.PlanError, match=r'there is no kind "nothing"; there are .*\bshared\b'):
        kept.compile(model, None, plan=plan, example_inputs=(torch.randn(4, 5),))


def test_the_names_of_kinds_are_their_own() -> None:
    class Taken(DirectKind):
        name = "dense"

    for kind in (Taken(), DirectKind()):
        with pytest.raises(altprop.PlanError, match="give the kind of feedback a name of its own"):
            add_kind(kind)
