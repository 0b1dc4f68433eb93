"""What `altprop.compile(model)` does: which rule, which wiring, and that it learns where direct wiring does not."""

import pytest
import torch
from torch import nn

import altprop
from altprop.data import load
from altprop.rules import Recipe
from altprop.rules.registry import DEFAULT, DEFAULT_PLAN
from altprop.training import make_config


class TwoHeaded(nn.Module):
    """A trunk of two layers; one head says the digit, the other how much ink there is."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU())
        self.digit = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.ink = nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.trunk(x)
        return self.digit(z), self.ink(z)


@pytest.fixture(scope="module")
def digits() -> list[torch.Tensor]:
    data = load("digits")
    train, test = data.train, data.test
    return [data.inputs(train.images), train.labels, data.inputs(test.images), test.labels]


def accuracy(digits: list[torch.Tensor], rule: str | None, plan: str | None = None) -> float:
    """In per cent, behind six epochs of Adam with the groups of the rule's recipe."""
    x, labels, held_out, answers = digits
    torch.manual_seed(0)
    net = altprop.compile(TwoHeaded(), rule, plan=plan, example_inputs=(x[:4],))
    optimizer = torch.optim.Adam(net.param_groups(), lr=1e-3, foreach=False)
    ink = x.flatten(1).mean(1, keepdim=True)
    order = torch.Generator().manual_seed(0)
    for _ in range(6):
        for chosen in torch.randperm(len(x), generator=order).split(64):
            optimizer.zero_grad()
            scores, found = net(x[chosen])
            loss = nn.functional.cross_entropy(scores, labels[chosen]) + nn.functional.mse_loss(found, ink[chosen])
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return 100 * float((net.model(held_out)[0].argmax(1) == answers).float().mean())


def test_the_default_is_along_edges_from_a_random_start(digits):
    x = digits[0][:4]
    net = altprop.compile(TwoHeaded(), example_inputs=(x,))
    named = altprop.compile(TwoHeaded(), DEFAULT, plan=DEFAULT_PLAN, example_inputs=(x,))
    assert net.plan.connections == named.plan.connections
    assert {region.rule for region in net.plan.regions} == {"bp", DEFAULT}
    assert all(connection.feedback.kind == "forward" for connection in net.plan.connections)
    assert not any("start" in connection.feedback.options for connection in net.plan.connections)
    assert net.recipe == Recipe(output_rate=10.0, weight_decay=0.4)
    assert [group["lr"] for group in net.param_groups()] == [1e-3, 1e-2, 1e-3]
    direct = altprop.compile(TwoHeaded(), plan="direct", example_inputs=(x,))
    assert {connection.source for connection in direct.plan.connections} <= {"digit.2", "ink"}


def test_the_default_learns_where_direct_wiring_does_not(digits):
    reached = {"bp": accuracy(digits, "bp"), "default": accuracy(digits, None), "direct": accuracy(digits, "reclra")}
    assert reached["default"] > reached["bp"] - 3, reached
    assert reached["direct"] < reached["bp"] - 10, reached


def test_runs_have_the_same_default():
    config = make_config(flags={"data": "digits"})
    assert (config.rule, config.plan, config.output_rate) == (DEFAULT, DEFAULT_PLAN, 10.0)
    assert make_config(flags={"plan": "direct"}).plan == "direct"
    assert make_config(flags={"rule": "reclra"}).plan is None
    assert make_config(flags={"rule": "reclra"}).output_rate is None


def test_adam_decays_by_the_groups_as_adamw_does(digits):
    """A recipe's decay is that of its optimizer: added to Adam's gradients it would be far too much."""
    x, labels, *_ = digits
    nets = []
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        torch.manual_seed(0)
        net = altprop.compile(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), example_inputs=(x[:4],)
        )
        optimizer = kind(net.param_groups(), foreach=False)
        for chosen in (slice(0, 64), slice(64, 128)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), labels[chosen]).backward()
            optimizer.step()
        nets.append(net)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    assert all("weight_decay" not in group for group in nets[0].param_groups(lr=1e-3)[:1])
