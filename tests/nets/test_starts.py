"""How feedback starts: at random, as the weights or near them, as their product; and what is said of it."""

import copy
import dataclasses
import hashlib
from functools import cache

import pytest
import torch
from tiny import mlp
from torch import nn

import altprop
from altprop import PlanError, RuleError, WiringPlan
from altprop.ir.drawing import to_dot

pytestmark = pytest.mark.third

STARTING = ("fa", "kp", "wm", "reclra", "lra_e")


@cache
def compiled(rule: str, plan: str | None, optimizer: bool) -> altprop.LocalNet:
    """The tiny net of two hidden layers, in double precision."""
    torch.manual_seed(1)
    inside = altprop.optim.SGD(lr=0.1, momentum=0.9) if optimizer else None
    example = (torch.zeros(3, 7).double(),)
    return altprop.compile(mlp(2).double(), rule, plan=plan, example_inputs=example, optimizer=inside, seed=5)


def net_of(rule: str, plan: str | None = None, *, optimizer: bool = False) -> altprop.LocalNet:
    """A copy of it; each is compiled once."""
    return copy.deepcopy(compiled(rule, plan, optimizer))


def net_of_plan(plan: WiringPlan) -> altprop.LocalNet:
    return altprop.compile(mlp(2), plan=plan, example_inputs=(torch.zeros(3, 7),))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, 7, generator=generator).double(), torch.randint(4, (5,), generator=generator)


def gradients(net: altprop.LocalNet, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    net.backward(x, y)
    return {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}


def stands_for(net: altprop.LocalNet) -> dict[str, str]:
    return {name: spec.stands_for for name, spec in net.graph.feedback.items()}


def test_a_random_start_is_what_it_was() -> None:
    """A function of the seed and the connection's name alone, the same with every release."""
    net = net_of("kp")
    digest = hashlib.sha256(b"5:fc3->fc2").digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    drawn = torch.rand((4, 6), generator=generator).mul_(2).sub_(1).mul_(1 / 6**0.5)
    assert torch.equal(net.feedback["fc3->fc2"], drawn.double())
    assert "start" not in str(net.plan)


def test_a_start_near_the_weights() -> None:
    """The weights, and a share of what would have been drawn."""
    near, drawn = net_of("kp(start='weights', start_noise=0.25)"), net_of("kp")
    for name, weight in stands_for(near).items():
        expected = near.model.get_parameter(weight) + 0.25 * drawn.feedback[name]
        torch.testing.assert_close(near.feedback[name], expected, rtol=1e-12, atol=0)
    assert "starts near the weights (noise 0.25)" in str(near.explain())


def test_from_the_weights_kolen_pollack_is_backprop_at_the_first_step() -> None:
    x, y = batch()
    made, expected = gradients(net_of("kp(start='weights')"), x, y), gradients(net_of("bp"), x, y)
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert not torch.equal(gradients(net_of("kp"), x, y)["fc1.weight"], expected["fc1.weight"])


class Smooth(nn.Module):
    """A stem, a residual block, an output, with tanh: nothing in it is linear by pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.one = nn.Linear(6, 5)
        self.two = nn.Linear(5, 6)
        self.out = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.stem(x))
        return self.out(torch.tanh(z + self.two(torch.tanh(self.one(z)))))


def test_along_edges_from_the_weights_targets_are_backprop_to_first_order() -> None:
    """Half the beta, half the difference: targets send errors along residual skips as backpropagation does."""
    x, y = batch()
    made = {}
    for beta in (0.0, 1e-3, 5e-4):
        torch.manual_seed(2)
        rule = f"reclra(start='weights', beta={beta}, units='beta')" if beta else "bp"
        made[beta] = gradients(altprop.compile(Smooth().double(), rule, plan="edges", example_inputs=(x,)), x, y)
    exact = made.pop(0.0)
    far, near = (sum(float((of[n] - exact[n]).square().sum()) for n in exact) ** 0.5 for of in made.values())
    whole = sum(float(gradient.square().sum()) for gradient in exact.values()) ** 0.5
    assert 0 < near < 1e-3 * whole
    assert near == pytest.approx(far / 2, rel=0.01)


def test_errors_in_units_of_activity_have_the_same_directions() -> None:
    x, y = batch()
    made = gradients(net_of("reclra(start='weights', beta=1e-5)", "edges"), x, y)
    for name, gradient in gradients(net_of("bp"), x, y).items():
        depth = {"fc1": 2, "fc2": 1, "fc3": 0}[name.partition(".")[0]]
        torch.testing.assert_close(made[name], gradient * 1e-5**depth, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "rule",
    [*STARTING, "kp(weight_decay=0.1, start='weights')", "reclra(gamma=0.5)", "reclra(feedback_learning='hebbian')"],
)
def test_feedback_starts_as_a_copy_and_stays_it_where_that_is_said(rule: str) -> None:
    """Three steps: feedback equals the weights, to the bit, exactly where `explain` says that it stays so."""
    x, y = batch()
    asked = rule if "start" in rule else f"{rule[:-1]}, start='weights')" if "(" in rule else f"{rule}(start='weights')"
    net = net_of(asked, "edges", optimizer=True)
    first = {name: p.detach().clone() for name, p in net.feedback.items()}
    assert stands_for(net) == {"fc2->fc1": "fc2.weight", "fc3->fc2": "fc3.weight"}
    for name, weight in stands_for(net).items():
        own = net.model.get_parameter(weight)
        assert torch.equal(net.feedback[name], own)
        assert net.feedback[name].data_ptr() != own.data_ptr()
    for _ in range(3):
        net.step(x, y)
    same = all(torch.equal(net.feedback[name], net.model.get_parameter(w)) for name, w in stands_for(net).items())
    says = "stays the weights: backprop's pathway" in str(net.explain())
    assert same == says == (rule.startswith("kp") or rule in ("reclra", "lra_e"))
    if says:
        assert not any(torch.equal(net.feedback[name], value) for name, value in first.items())


def test_a_tied_weight_moves_by_more_than_its_feedback_hears() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.two(torch.tanh(self.one(x)))))

    table = altprop.compile(Tied(), "kp(start='weights')", example_inputs=(torch.zeros(3, 6),)).explain()
    assert "two->one (forward, starts as the weights)" in table["one.bias"].connection
    assert "out->two (forward, stays the weights: backprop's pathway)" in table["two.bias"].connection


def test_direct_feedback_may_start_as_the_product_of_the_weights() -> None:
    net = net_of("dfa(start='product')")
    expected = net.model.fc3.weight @ net.model.fc2.weight
    torch.testing.assert_close(net.feedback["fc3->fc1"].flatten(1), expected.detach())
    assert "fc3->fc1 (dense, starts as the product of the weights)" in net.explain()["fc1.weight"].connection
    assert torch.equal(net.feedback["fc3->fc1"], net_of("dfa(kind='product')").feedback["fc3->fc1"])


@pytest.fixture(scope="module")
def told() -> altprop.LocalNet:
    return net_of("reclra(start='weights')", "edges")


def test_plans_hold_the_start_and_read_back(told: altprop.LocalNet, tmp_path) -> None:
    assert 'forward(scale=1.0, start="weights") learned' in str(told.plan)
    for suffix in (".json", ".txt", ".graphml"):
        told.plan.save(tmp_path / f"plan{suffix}")
        assert WiringPlan.load(tmp_path / f"plan{suffix}") == told.plan


def test_texts_and_drawings_say_so(told: altprop.LocalNet, tmp_path) -> None:
    says = "stays the weights: backprop's pathway"
    assert f"fc3->fc2  (4, 6)  {says}  learned  for fc3.weight" in str(told.graph)
    edges = [v for *_, v in told.graph.to_networkx().edges(data=True) if v["kind"] == "skip-error"]
    assert [edge["start"] for edge in edges] == [says, says]
    assert f'label="forward, {says}"' in to_dot(told.graph)
    page = told.graph.draw(tmp_path / "net.html").read_text()
    assert "stays the weights: backprop&#x27;s pathway" in page


def test_examine_says_so_before_any_work() -> None:
    model, x = mlp(2), (torch.zeros(3, 7),)
    report = altprop.examine(model, x, rule="kp(start='weights')")
    assert "note: feedback on 2 of 2 connections stays the weights: backprop's pathway" in str(report)
    report = altprop.examine(model, x, rule="fa(start='weights')")
    assert "note: feedback on 2 of 2 connections starts as the weights" in str(report)
    assert "connections start" not in str(altprop.examine(model, x, rule="kp"))
    report = altprop.examine(model, x, rule="kp", plan="direct")
    assert not report.ok
    assert 'cannot follow the plan "direct"' in str(report)


def test_checkpoints_hold_what_feedback_became(told: altprop.LocalNet) -> None:
    """Whoever loads a checkpoint gets its feedback, whatever the own start was."""
    x, y = batch()
    net = copy.deepcopy(told)
    net.backward(x, y)
    with torch.no_grad():
        for p in net.parameters():
            p.sub_(p.grad)
    other = net_of("reclra", "edges")
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.feedback["fc3->fc2"], net.feedback["fc3->fc2"])
    again = copy.deepcopy(net)
    assert again.feedback["fc3->fc2"].data_ptr() != net.feedback["fc3->fc2"].data_ptr()


@pytest.mark.parametrize(
    ("rule", "plan", "message"),
    [
        (
            "reclra(start='weights')",
            "direct",
            'no feedback of the plan "direct" can start so; forward feedback can: plan=',
        ),
        ("usf(start='weights')", None, 'no feedback of the plan "chain" can start so'),
        ("kp(start='product')", None, "dense feedback can: direct connections may have it"),
    ],
)
def test_a_start_that_no_connection_can_have_is_refused(rule: str, plan: str | None, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        net_of(rule, plan)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("kp(start='gold')", 'start="gold"; choose from random, weights, product'),
        ("kp(start_noise=0.1)", r'start_noise=0\.1: it is 0 or more, and goes with start="weights"'),
        ("reclra(units='volt')", 'units="volt"; choose "activity" or "beta"'),
    ],
)
def test_wrong_options_are_refused(rule: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        altprop.rules.get(rule)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"start": "product"},
            r'\(fc2->fc1\)\.feedback\.options\.start: "forward" feedback does not start as "product"',
        ),
        ({"start": "weights", "start_noise": -1}, r"start_noise=-1: it is a number, 0 or more"),
        ({"start_noise": 0.5}, r'start_noise=0\.5: .* goes with start="weights"'),
    ],
)
def test_wrong_starts_in_a_plan_are_refused(told: altprop.LocalNet, options: dict[str, object], message: str) -> None:
    feedback = altprop.Feedback("forward", options, learning=True)
    connections = [
        dataclasses.replace(c, feedback=feedback) if c.name == "fc2->fc1" else c for c in told.plan.connections
    ]
    with pytest.raises(PlanError, match=message):
        net_of_plan(dataclasses.replace(told.plan, connections=tuple(connections)))
