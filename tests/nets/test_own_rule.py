"""A rule that the library does not know, in this one file: arithmetic, and its wiring and name as data."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.rules import About, DirectFeedbackAlignment, Incoming, Local, Rule, Wiring
from altprop.rules.base import RULES


@pytest.fixture(scope="module", autouse=True)
def registry() -> Iterator[None]:
    yield
    for name in ("clipped", "wide_awake", "unsaid", "follower", "following_dfa"):
        del RULES[name]


@dataclasses.dataclass(frozen=True)
class Clipped(Rule):
    """`d = clip(e_L) B`, `e = d`: no derivative of the activation is read."""

    about: ClassVar[About] = About("clipped", "clipped errors, straight to every region", equation="e = d")
    wiring: ClassVar[Wiring] = Wiring(reads_derivative=False)

    limit: float = 0.5

    def signal(self, local: Local, incoming: Sequence[Incoming]) -> torch.Tensor:
        """The error between limits."""
        (connection,) = incoming
        return connection.project(connection.error.clamp(-self.limit, self.limit))

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """As it comes, but at an output."""
        return super().error(local, d) if local.region.is_output else d


@dataclasses.dataclass(frozen=True)
class WideAwake(DirectFeedbackAlignment):
    """Direct feedback alignment on the plan of modules, whose ends follow another rule."""

    about: ClassVar[About] = About("wide_awake", listed=False)
    wiring: ClassVar[Wiring] = DirectFeedbackAlignment.wiring.but(
        plan="modules", outer=lambda rule: altprop.rules.get("fa")
    )


@dataclasses.dataclass(frozen=True)
class Unsaid(DirectFeedbackAlignment):
    """Reads noise that its wiring does not ask for."""

    about: ClassVar[About] = About("unsaid", listed=False)

    def error(self, local: Local, d: torch.Tensor) -> torch.Tensor:
        """With noise on top."""
        return super().error(local, d) + local.noise


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [part for width in (6, 5, 4) for part in (nn.LazyLinear(width), nn.Tanh())]
    made = nn.Sequential(*layers, nn.LazyLinear(3)).double()
    made(torch.zeros(2, 7, dtype=torch.float64))
    return made


def test_its_updates_are_its_equations() -> None:
    net_model = model()
    x, y = torch.randn(4, 7, dtype=torch.float64), torch.randint(3, (4,))
    net = kept.compile(net_model, "clipped(limit=0.25)", example_inputs=(x,))
    net.backward(x, y)
    error = torch.softmax(net_model(x), 1) - nn.functional.one_hot(y, 3)
    e = error.clamp(-0.25, 0.25) @ net.feedback["6->0"]
    moved = net_model[0].weight.grad
    assert isinstance(moved, torch.Tensor)
    assert torch.allclose(moved, e.T @ x / 4, rtol=0, atol=1e-10)
    assert net.explain()["0.weight"].rule == "clipped(limit=0.25)"


def test_its_wiring_decides_plan_and_rules() -> None:
    net = kept.compile(model(), "wide_awake", example_inputs=(torch.randn(4, 7, dtype=torch.float64),))
    rules = {region.name: region.rule for region in net.plan.regions}
    assert rules == {"0": "wide_awake", "2": "wide_awake", "4": "fa", "6": "bp"}
    assert [c.name for c in net.plan.incoming("0")] == ["4->0"]
    assert "wide_awake" not in altprop.rules.available()


def test_noise_that_the_wiring_does_not_speak_of_is_refused() -> None:
    message = 'region "4": its rule reads `local.noise`, but its wiring does not say `draws_noise=True`'
    with pytest.raises(altprop.RuleError, match=message.replace('"4"', '"[0-6]"')):
        kept.compile(model(), Unsaid(), example_inputs=(torch.zeros(2, 7, dtype=torch.float64),))


@dataclasses.dataclass(frozen=True)
class Follower(Rule):
    """Usual wiring, and feedback that moves."""

    about: ClassVar[About] = About("follower", listed=False)

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Output error and activity."""
        return incoming.outer(local.z)


@dataclasses.dataclass(frozen=True)
class FollowingDFA(DirectFeedbackAlignment):
    """The same, made from a rule whose feedback is fixed."""

    about: ClassVar[About] = About("following_dfa", listed=False)

    def feedback_update(
        self, local: Local, incoming: Incoming, d: torch.Tensor, e: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Output error and activity."""
        return incoming.outer(local.z)


@pytest.mark.parametrize("rule", ["follower", "following_dfa"])
def test_a_rule_that_says_how_feedback_moves_moves_it(rule: str) -> None:
    """Nothing else has to say that it is learned; a plan may still hold it fixed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    inputs, target = torch.randn(6, 5), torch.randint(3, (6,))
    net = kept.compile(model, rule, example_inputs=(inputs,))
    net.backward(inputs, target)
    (feedback,) = net.feedback_parameters()
    activity = torch.tanh(model[0](inputs))
    error = torch.softmax(model(inputs), 1) - nn.functional.one_hot(target, 3)
    torch.testing.assert_close(feedback.grad, error.t() @ activity / 6)
    (connection,) = net.plan.connections
    held = dataclasses.replace(connection, feedback=dataclasses.replace(connection.feedback, learning=False))
    plan = altprop.WiringPlan(net.plan.regions, (held,))
    fixed = altprop.compile(model, example_inputs=(inputs,), plan=plan)
    assert not any(parameter.requires_grad for parameter in fixed.feedback_parameters())
