"""What a user hands over is matched by name and kept as it was, or refused in a sentence; never misread."""

import copy
import pickle
from typing import Any

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.ir.errors import CompileError, ScheduleError

pytestmark = pytest.mark.third

SGD = altprop.optim.SGD(lr=0.1, momentum=0.9)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, (count,), generator=torch.Generator().manual_seed(seed))


def layers(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4) if norm else nn.Tanh(), nn.Tanh(), nn.Linear(4, 3))


def compiled(model: nn.Module, rule: str = "bp", **options: Any) -> Any:
    return kept.compile(model, rule, example_inputs=(drawn(4, 5),), optimizer=SGD, **options)


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_batch_norm_on_one_sample_is_refused_and_leaves_no_trace(backend: str) -> None:
    net = compiled(layers(norm=True), backend=backend)
    net.step(drawn(4, 5), classes(4))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for call in (net.step, net.backward):
        with pytest.raises(ValueError, match="the batch has one sample; batch norm in training mode has one value a"):
            call(drawn(1, 5), classes(1))
    with pytest.raises(ValueError, match="the batch has one sample"):
        net(drawn(1, 5))
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    net.step(drawn(2, 5), classes(2))
    net.eval()
    assert net(drawn(1, 5)).isfinite().all()


def test_batch_norm_over_several_values_of_one_sample_is_not_refused() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(N, 6, 5) to (N, 3): the norm sees N * 6 rows."""
            h = self.norm(self.first(x).reshape(-1, 4)).reshape(-1, 6, 4)
            return self.last(torch.tanh(h).mean(1))

    torch.manual_seed(0)
    net = kept.compile(Positions(), "bp", example_inputs=(drawn(4, 6, 5),), optimizer=SGD)
    assert net.step(drawn(1, 6, 5), classes(1)).isfinite()


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_a_batch_of_nothing_is_refused(backend: str) -> None:
    net = compiled(layers(), backend=backend)
    net.step(drawn(4, 5), classes(4))
    with pytest.raises(ValueError, match=r"the batch has no samples\."):
        net.step(drawn(0, 5), classes(0))
    assert all(value.isfinite().all() for value in net.state_dict().values())


def test_micro_batches_of_one_sample_are_refused_behind_batch_norm() -> None:
    with pytest.raises(ScheduleError, match="micro-batches of one sample do not do: batch norm"):
        compiled(layers(norm=True)).schedule(devices=2, microbatches=4, batch=4)
    compiled(layers()).schedule(devices=2, microbatches=4, batch=4)


class Pair(nn.Module):
    """Takes a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        """Two of (N, 5) to (N, 3)."""
        return torch.tanh(self.one(given["a"])) - 2 * torch.tanh(self.other(given["b"]))


def pair(**options: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = Pair()
    example = ({"a": drawn(4, 5), "b": drawn(4, 5, seed=1)},)
    return model, kept.compile(model, "bp", example_inputs=example, **options)


def test_a_dictionary_among_the_inputs_is_read_by_its_keys() -> None:
    model, net = pair()
    a, b = drawn(4, 5, seed=2), drawn(4, 5, seed=3)
    expected = model({"a": a, "b": b})
    assert torch.equal(net({"b": b, "a": a}), expected)
    assert torch.equal(net({"a": a, "b": b}), expected)
    with pytest.raises(CompileError):
        net({"a": a, "c": b})
    with pytest.raises(CompileError):
        net([a, b])


def test_a_schedule_refuses_other_keys() -> None:
    _, net = pair(optimizer=SGD)
    running = net.schedule(devices=2, batch=4).runtime("serial")
    a, b = drawn(4, 5, seed=2), drawn(4, 5, seed=3)
    running.step(({"a": a, "b": b},), classes(4))
    with pytest.raises(ScheduleError, match="the inputs are not built as those of the capture"):
        running.step(({"b": b, "a": a},), classes(4))


def uneven(output: torch.Tensor, target: dict[str, torch.Tensor]) -> torch.Tensor:
    return functional.mse_loss(output, target["a"]) + 5 * functional.mse_loss(output, target["b"])


def test_a_dictionary_as_target_is_read_by_its_keys() -> None:
    net = kept.compile(layers(), "bp", example_inputs=(drawn(4, 5),), loss=uneven)
    x, a, b = drawn(4, 5), drawn(4, 3, seed=1), drawn(4, 3, seed=2)
    expected = float(uneven(net.model(x), {"a": a, "b": b}).detach())
    assert float(net.backward(x, {"a": a, "b": b})) == pytest.approx(expected)
    assert float(net.backward(x, {"b": b, "a": a})) == pytest.approx(expected)
    assert float(net.backward(x, {"a": a, "b": b})) == pytest.approx(expected)


def test_a_schedule_refuses_other_keys_of_targets() -> None:
    net = kept.compile(layers(), "bp", example_inputs=(drawn(4, 5),), loss=uneven, optimizer=SGD)
    x, a, b = drawn(4, 5), drawn(4, 3, seed=1), drawn(4, 3, seed=2)
    running = net.schedule(devices=2, batch=4, target={"a": a, "b": b}).runtime("serial")
    expected = float(uneven(net.model(x), {"a": a, "b": b}).detach())
    assert float(running.step(x, {"a": a, "b": b})) == pytest.approx(expected)
    with pytest.raises(ScheduleError, match="the target is not built as the example"):
        running.step(x, {"b": b, "a": a})


def test_a_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    model = layers(norm=True)
    model[1].eval()
    net = compiled(model)
    assert [module.training for module in model] == [True, False, True, True]
    before = model[1].running_mean.clone()
    net.step(drawn(4, 5, seed=4), classes(4))
    assert torch.equal(model[1].running_mean, before)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert not other.model[1].training
        assert torch.equal(other.step(drawn(4, 5), classes(4)), copy.deepcopy(net).step(drawn(4, 5), classes(4)))


def test_a_model_in_evaluation_mode_compiles_for_training_and_stays() -> None:
    model = layers(norm=True).eval()
    compiled(model)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("rule", ["reclra", "dfa"])
def test_layers_may_be_frozen_and_thawed_after_compiling(rule: str) -> None:
    net = compiled(layers(), rule)
    x, y = drawn(4, 5), classes(4)
    net.step(x, y)
    feedback = {name: value.clone() for name, value in net.feedback.items()}
    net.model[0].requires_grad_(False)
    before = net.model[0].weight.clone()
    net.step(x, y)
    assert torch.equal(net.model[0].weight, before)
    net.model[0].requires_grad_(True)
    net.step(x, y)
    assert not torch.equal(net.model[0].weight, before)
    if rule == "dfa":
        assert all(torch.equal(net.feedback[name], value) for name, value in feedback.items())


def test_a_layer_that_was_frozen_at_first_may_be_thawed() -> None:
    model = layers()
    model[0].requires_grad_(False)
    net = compiled(model, "dfa")
    net.step(drawn(4, 5), classes(4))
    model[0].requires_grad_(True)
    before = model[0].weight.clone()
    net.step(drawn(4, 5), classes(4))
    assert not torch.equal(model[0].weight, before)


def test_steps_are_counted_on_where_a_checkpoint_does_not_say() -> None:
    net = kept.compile(layers(), "ddtp", example_inputs=(drawn(4, 5),), optimizer=altprop.optim.Adam(lr=0.01))
    for _ in range(3):
        net.step(drawn(4, 5), classes(4))
    draws = net.noise.count
    net.load_state_dict({"model.0.weight": net.model[0].weight.detach().clone()}, strict=False)
    assert (net.state.count, net.noise.count) == (3, draws)
    assert draws > 0
    other = kept.compile(layers(), "ddtp", example_inputs=(drawn(4, 5),), optimizer=altprop.optim.Adam(lr=0.01))
    other.load_state_dict(net.state_dict())
    assert (other.state.count, other.noise.count) == (3, draws)


def test_a_schedule_and_steps_in_onnxruntime_take_turns() -> None:
    nets = [compiled(layers(), "dfa", backend=backend) for backend in ("eager", "onnxruntime")]
    losses = []
    for net in nets:
        running = net.schedule(devices=2, batch=4).runtime("serial")
        steps = (net.step, running.step, running.step, net.step, running.step)
        losses.append([float(step(drawn(4, 5, seed=i), classes(4, i))) for i, step in enumerate(steps)])
        assert torch.equal(dict(net.named_children())["model"][0].weight, net.model[0].weight)
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_one_tensor_will_do_as_example() -> None:
    net = kept.compile(layers(), "dfa", example_inputs=drawn(4, 5))
    assert net(drawn(2, 5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": torch.optim.SGD(layers().parameters(), lr=0.1)}, r"optimizer=SGD.*altprop\.optim\.SGD"),
        ({"optimizer": "sgd"}, r"optimizer='sgd': the optimizer inside"),
        ({"optimizer": altprop.optim.SGD}, r"optimizer=SGD: the optimizer inside"),
        ({"rule": 7}, r"rule=7: give a rule's name"),
        ({"plan": 7}, r"plan=7: give a plan's name"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CompileError, match=said):
        altprop.compile(layers(), **options)


def test_onnxruntime_names_what_it_does_not_take() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layers()

        def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
            """(N, 5) to (N, 3)."""
            return self.inner(x.float() * factor)

    net = altprop.compile(Scaled(), "dfa", optimizer=SGD, backend="onnxruntime")
    eager = altprop.compile(Scaled(), "dfa", optimizer=SGD)
    batch = {"x": drawn(4, 5), "factor": 0.5}
    assert float(net.step(batch, classes(4))) == pytest.approx(float(eager.step(batch, classes(4))), abs=1e-5)
    with pytest.raises(CompileError, match=r"takes tensors of float32.*, not of torch\.int16: convert it first"):
        net.step((torch.ones(4, 5, dtype=torch.int16),), classes(4))
