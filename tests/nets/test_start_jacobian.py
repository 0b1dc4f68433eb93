"""Direct feedback that starts as the mean Jacobian over the example batch."""

import pytest
import torch
from torch import nn

import altprop


def _net(model, x, rule, **options):
    return altprop.compile(model, rule, plan="direct", example_inputs=(x,), **options)


def test_dense_feedback_starts_as_the_mean_jacobian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(8, 5).double()
    net = _net(model, x, "reclra(kind='dense', start='jacobian')")
    for target, activity in (("0", 2), ("2", 4)):
        z = model[:activity](x)
        exact = torch.func.vmap(torch.func.jacrev(model[activity:]))(z).mean(0)
        torch.testing.assert_close(net.feedback[f"4->{target}"].data, exact)
    assert "starts as the mean Jacobian of the example batch" in str(net.explain())
    assert not any(p.grad is not None for p in model.parameters())


def test_one_number_a_channel_is_the_mean_over_positions_too():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3))
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), *head).double()
    x = torch.randn(6, 1, 8, 8).double()
    net = _net(model, x, "dfa(kind='channel', options={'start': 'jacobian'})")
    exact = torch.func.vmap(torch.func.jacrev(lambda z: model[2:](z[None])[0]))(model[:2](x))
    torch.testing.assert_close(net.feedback["5->0"].data, exact.mean((0, 3, 4)))


def test_a_linear_net_under_dfa_then_steps_as_backpropagation():
    """There the Jacobian is the same for all samples, so that the first step is exact."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Identity(), nn.Linear(6, 4), nn.Linear(4, 3)).double()
    x, y = torch.randn(8, 5).double(), torch.randint(3, (8,))
    net = _net(model, x, "dfa(kind='dense', options={'start': 'jacobian'})")
    net.backward(x, y)
    made = [p.grad.clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    nn.functional.cross_entropy(model(x), y).backward()
    for one, p in zip(made, model.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad)


def test_torch_s_own_random_state_is_left_alone():
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(), nn.Linear(6, 3))
    x = torch.randn(8, 5)
    rule = "reclra(kind='dense', start='jacobian')"
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _net(model, x, rule).feedback["3->0"].clone()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(_net(model, x, rule).feedback["3->0"], first)


def test_kinds_that_cannot_start_so_are_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    with pytest.raises(altprop.PlanError, match="dense, channel feedback can"):
        altprop.compile(model, "reclra(start='jacobian')", plan="edges", example_inputs=(torch.randn(4, 5),))
