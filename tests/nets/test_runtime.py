"""Running a compiled net: the user's own loop, evaluation, capture at the first call, inputs by keyword."""

import copy
from collections.abc import Callable
from typing import Any

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo_cases import Case
from zoo_small import ConvNet, mlp

import altprop

pytestmark = pytest.mark.third

RULES = ("bp", "fa", "dfa", "reclra")


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return mlp(nn.Tanh)


def batch(index: int = 0, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(size, 7, generator=generator), torch.randint(3, (size,), generator=generator)


class Keywords(nn.Module):
    """Takes a required input, an optional mask and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, twice: bool = False) -> torch.Tensor:
        z = torch.tanh(self.first(x))
        if mask is not None:
            z = z * mask
        return self.out(2 * z if twice else z)


def own_loop(net: altprop.LocalNet, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for index in range(steps):
        x, y = batch(index)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("rule", RULES)
def test_the_users_own_loop_is_the_step(rule: str) -> None:
    settings: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}
    inside = kept.compile(
        make_model(),
        rule,
        example_inputs=(batch()[0],),
        optimizer=altprop.optim.SGD(**settings, feedback_lr=0.02),
    )
    outside = kept.compile(make_model(), rule, example_inputs=(batch()[0],))
    optimizer = torch.optim.SGD(outside.param_groups(lr=0.1, feedback_lr=0.02), **settings)
    losses = own_loop(outside, optimizer, 5)
    assert [float(inside.step(*batch(i))) for i in range(5)] == pytest.approx(losses, abs=1e-5)
    expected = {k: v for k, v in inside.state_dict().items() if not k.startswith("state.")}
    for key, value in outside.state_dict().items():
        if key in expected:
            assert torch.allclose(value, expected[key], atol=1e-5), key
    assert any(not torch.equal(p, q) for p, q in zip(make_model().parameters(), inside.model.parameters(), strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_schedules_change_the_rate_between_steps(rule: str) -> None:
    optimizer = altprop.optim.SGD(lr=0.1)
    net = kept.compile(make_model(), rule, example_inputs=(batch()[0],), optimizer=optimizer)
    net.step(*batch())
    frozen = copy.deepcopy(net.state_dict())
    assert net.optimizer is not None
    net.optimizer.lr = 0.0
    net.step(*batch(1))
    for key, value in net.model.state_dict().items():
        assert torch.equal(value, frozen[f"model.{key}"])


def test_an_added_penalty_reaches_autograd() -> None:
    """What a user computes beside the net, from its parameters, keeps its own gradient."""
    net = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],))
    x, y = batch()
    net.backward(x, y)
    weight = net.model.get_parameter("0.weight")
    assert weight.grad is not None
    wanted = weight.grad + 0.1 * weight.detach()
    net.zero_grad()
    (F.cross_entropy(net(x), y) + 0.05 * weight.square().sum()).backward()
    assert torch.allclose(weight.grad, wanted, atol=1e-6)


def test_a_part_of_a_larger_graph() -> None:
    """A head that the user trains with autograd on top of a net."""
    net = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],), loss="mse")
    head = nn.Linear(3, 2)
    head(torch.relu(net(batch()[0]))).square().mean().backward()
    assert head.weight.grad is not None
    assert all(p.grad is not None and p.grad.any() for p in net.model.parameters())


# modes


def test_evaluation_keeps_statistics_and_needs_no_program() -> None:
    torch.manual_seed(0)
    model = ConvNet()
    x = torch.randn(4, 2, 8, 8)
    net = kept.compile(model, "dfa", example_inputs=(x,))
    net(x)
    net.eval()
    assert not model.training
    before = copy.deepcopy(model.state_dict())
    output = net(x)
    assert not output.requires_grad
    assert torch.equal(output, net(x)), "dropout is off"
    assert torch.equal(output, copy.deepcopy(model)(x))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    net.train()
    assert model.training
    assert not torch.equal(net(x), output)


def test_a_norm_may_be_held_in_evaluation() -> None:
    """As in fine-tuning: its statistics stay, and its affine learns."""
    torch.manual_seed(0)
    model = ConvNet()
    x, y = torch.randn(4, 2, 8, 8), torch.randint(3, (4,))
    net = kept.compile(model, "bp", example_inputs=(x,))
    model.bn1.eval()
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    F.cross_entropy(twin(x), y).backward()
    torch.manual_seed(1)
    net.backward(x, y)
    assert torch.equal(model.bn1.running_mean, torch.zeros(5))
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_training_without_grad_still_counts_the_batch() -> None:
    torch.manual_seed(0)
    model = ConvNet()
    x = torch.randn(4, 2, 8, 8)
    net, twin = kept.compile(model, "dfa", example_inputs=(x,)), copy.deepcopy(model)
    with torch.no_grad():
        torch.manual_seed(1)
        output = net(x)
        torch.manual_seed(1)
        assert torch.equal(output, twin(x))
    assert torch.equal(model.bn1.running_mean, twin.bn1.running_mean)
    assert not output.requires_grad


def test_statistics_move_once_a_step() -> None:
    torch.manual_seed(0)
    model = ConvNet()
    x, y = torch.randn(4, 2, 8, 8), torch.randint(3, (4,))
    runs: dict[str, Callable[[altprop.LocalNet], Any]] = {
        "step": lambda net: net.step(x, y),
        "backward": lambda net: net.backward(x, y),
        "bridge": lambda net: F.cross_entropy(net(x), y).backward(),
    }
    twin = copy.deepcopy(model)
    twin(x)
    for name, run in runs.items():
        net = kept.compile(copy.deepcopy(model), "dfa", example_inputs=(x,), optimizer=altprop.optim.SGD(lr=0.1))
        run(net)
        for key, value in net.model.named_buffers():
            assert torch.allclose(value, twin.get_buffer(key), atol=1e-6), (name, key)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
def test_parameters_may_be_frozen_after_compiling(rule: str) -> None:
    net = kept.compile(make_model(), rule, example_inputs=(batch()[0],))
    net.backward(*batch())
    net.zero_grad(set_to_none=True)
    net.model.get_parameter("2.weight").requires_grad_(False)
    net.backward(*batch())
    F.cross_entropy(net(batch()[0]), batch()[1]).backward()
    without = {name for name, p in net.model.named_parameters() if p.grad is None}
    assert without == {"2.weight"}


# capture at the first call


def test_capture_at_the_first_call_warns_once_and_trains() -> None:
    net = altprop.compile(make_model(), "reclra")
    with pytest.warns(UserWarning, match="feedback parameters do not exist yet .* pass example_inputs="):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    list(net.parameters())
    x, y = batch()
    first = float(F.cross_entropy(net(x), y).detach())
    feedback = copy.deepcopy(dict(net.feedback.items()))
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * first
    assert len(feedback) == 2
    for name, matrix in net.feedback.items():
        assert torch.equal(matrix, feedback[name]), "an optimizer that does not know feedback leaves it fixed"


def test_nothing_is_known_before_the_first_call() -> None:
    net = altprop.compile(make_model(), "dfa")
    for read in (lambda: net.plan, lambda: net.graph, lambda: net.history, net.explain):
        with pytest.raises(altprop.CompileError, match="nothing is compiled yet: call the net once"):
            read()
    net(batch()[0])
    assert net.plan.name == "direct", "the name of the wiring that the rule brings"
    assert len(net.explain()) == 6


def test_the_first_call_may_be_any_call() -> None:
    optimizer = altprop.optim.SGD(lr=0.1)
    reference = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],), optimizer=optimizer)
    expected = reference.step(*batch())
    late = altprop.compile(make_model(), "dfa", optimizer=optimizer)
    assert torch.equal(late.step(*batch()), expected)
    for one, other in zip(late.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(one, other)


# inputs


def test_inputs_by_keyword() -> None:
    torch.manual_seed(0)
    model = Keywords()
    x, y = batch()
    mask = (torch.rand(4, 5) > 0.5).float()
    net = kept.compile(model, "bp", example_inputs=(x,), example_kwargs={"mask": mask})
    twin = copy.deepcopy(model)
    expected = F.cross_entropy(twin(x, mask=mask), y)
    expected.backward()
    loss = F.cross_entropy(net(x, mask=mask), y)
    assert torch.equal(loss, expected)
    loss.backward()
    net.backward({"mask": mask, "x": x}, y)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, 2 * other.grad, atol=1e-6)


def test_other_forms_of_call_compile_on_their_own() -> None:
    torch.manual_seed(0)
    model = Keywords()
    x, _ = batch()
    mask = torch.zeros(4, 5)
    net = kept.compile(model, "dfa", example_inputs=(x,))
    matrices = dict(net.feedback.items())
    for args, kwargs in (((x,), {}), ((x, mask), {}), ((x,), {"mask": mask}), ((x,), {"twice": True})):
        for _ in range(2):
            assert torch.equal(net(*args, **kwargs), model(*args, **kwargs))
    assert {name: id(p) for name, p in net.feedback.items()} == {name: id(p) for name, p in matrices.items()}


def test_keywords_in_any_order() -> None:
    case = Case("keywords", Keywords, lambda size: (), lambda size: None)
    model = case.model().float()
    x, mask = batch()[0], torch.rand(4, 5)
    net = kept.compile(model, "dfa", example_kwargs={"x": x, "mask": mask})
    assert torch.equal(net(mask=mask, x=x), model(x, mask))


@pytest.mark.parametrize("size", [2, 3, 64])
def test_any_batch_after_the_capture(size: int) -> None:
    net = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],))
    made = len(net.compilations.variants)
    x, _ = batch(size=size)
    assert torch.equal(net(x), net.model(x))
    net.backward(*batch(size=size))
    assert len(net.compilations.variants) == made, "another batch compiles nothing"


def test_integer_and_float_inputs_may_change_dtype() -> None:
    net = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],))
    net.double()
    x = batch()[0].double()
    assert torch.equal(net(x), net.model(x))


def test_rules_by_region() -> None:
    rules = {"0": "dfa", "2": "reclra(beta=0.3)", "*": "dfa"}
    net = kept.compile(make_model(), rules, example_inputs=(batch()[0],))
    assert [row.rule for row in net.explain().rows[::2]] == ["dfa", "reclra(beta=0.3)", "bp"]


def test_a_loss_is_a_scalar_of_the_right_value() -> None:
    net = kept.compile(make_model(), "dfa", example_inputs=(batch()[0],), optimizer=altprop.optim.SGD(lr=0.1))
    x, y = batch()
    expected = F.cross_entropy(net.model(x), y).detach()
    for loss in (net.backward(x, y), net.step(x, y)):
        assert loss.shape == ()
        assert torch.allclose(loss, expected, atol=1e-6)


def test_recorded_steps_want_a_gpu() -> None:
    net = kept.compile(
        nn.Linear(3, 2), "dfa", example_inputs=(torch.zeros(4, 3),), optimizer=altprop.optim.SGD(), backend="cudagraphs"
    )
    with pytest.raises(altprop.CompileError, match='move model and inputs to "cuda" first, or take backend="eager"'):
        net.step(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
