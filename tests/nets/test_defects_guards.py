"""What a forward reads beside tensors, layers that are replaced, hooks: a net never goes on with what was."""

import copy
import dataclasses
import enum
import io
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import altprop
from altprop.ir.errors import CompileError

pytestmark = pytest.mark.third

SCALE = 1.0
STAY = 3  # forms of a net that stay, in a test


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * SCALE


class Mood(enum.Enum):
    LOUD, QUIET = 2.0, 0.5


@dataclasses.dataclass
class Settings:
    gain: float = 1.0
    unread: float = 0.0
    inner: Any = None


class Reader(nn.Module):
    """Reads settings of every kind."""

    share = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.a, self.drop, self.act, self.out = nn.Linear(6, 8), nn.Dropout(0.0), nn.Tanh(), nn.Linear(8, 3)
        self.t, self.flag, self.function, self.mood = 1.0, False, torch.sin, Mood.LOUD
        self.settings = Settings(inner=types.SimpleNamespace(shift=0.0))
        self.table, self.list, self.pair = {"w": 1.0}, [1.0, 1.0], (1.0, 1.0)
        self.unread, self.log = 0, []
        self.plain = torch.tensor(1.0)
        self.register_buffer("gate", torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.function(self.act(self.a(x)))
        h = self.drop(h) * self.gate * self.plain * self.share * self.mood.value
        h = h * self.settings.gain + self.settings.inner.shift + self.table["w"] * self.list[1] * self.pair[0]
        h = h.relu() if self.flag else h
        found: torch.Tensor = scaled(self.out(h)) / self.t
        return found


def set_item(name: str, key: Any, value: float) -> Callable[[Reader], None]:
    def change(model: Reader) -> None:
        getattr(model, name)[key] = value

    return change


def set_path(path: str, value: Any) -> Callable[[Reader], None]:
    def change(model: Reader) -> None:
        *owners, name = path.split(".")
        owner: Any = model
        for step in owners:
            owner = getattr(owner, step)
        setattr(owner, name, value)

    return change


CHANGES: dict[str, Callable[[Reader], None]] = {
    "a temperature": set_path("t", 4.0),
    "a flag": set_path("flag", True),
    "dropout": set_path("drop.p", 1.0),
    "a function": set_path("function", torch.cos),
    "an activation": set_path("act", nn.ReLU()),
    "a member of an enum": set_path("mood", Mood.QUIET),
    "a field of a dataclass": set_path("settings.gain", 3.0),
    "a field deep inside": set_path("settings.inner.shift", 1.0),
    "an element of a mapping": set_item("table", "w", 2.0),
    "an element of a list": set_item("list", 1, 2.0),
    "a whole mapping": set_path("table", {"w": 2.0}),
    "a whole object": set_path("settings", Settings(gain=3.0, inner=types.SimpleNamespace(shift=0.0))),
    "a tuple": set_path("pair", (2.0, 1.0)),
    "a plain tensor": set_path("plain", torch.tensor(2.0)),
    "a buffer": set_path("gate", torch.tensor(2.0)),
    "an attribute of the class, on the object": set_path("share", 2.0),
    "another forward": lambda model: setattr(model.act, "forward", torch.relu),  # type: ignore[func-returns-value]
}

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])


@pytest.fixture(scope="module")
def compiled() -> altprop.LocalNet:
    torch.manual_seed(0)
    return altprop.compile(Reader(), rule="bp", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.0))


@pytest.fixture
def net(compiled: altprop.LocalNet) -> altprop.LocalNet:
    made = copy.deepcopy(compiled)
    made.step(X, Y), made.step(X, Y)  # the second one is a ready step
    assert len(made.compilations.variants) == 1
    return made


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(X), Y)


def agrees(net: altprop.LocalNet) -> bool:
    """Whether loss and gradients are those of autograd on the model as it is."""
    twin = copy.deepcopy(net.model)
    loss_of(twin).backward()
    net.zero_grad()
    losses = [net.step(X, Y), net.backward(X, Y)]
    same = [torch.allclose(loss, loss_of(twin)) for loss in losses] + [torch.allclose(net(X), twin(X))]
    pairs = zip(net.model.parameters(), twin.parameters(), strict=True)
    grads = [torch.allclose(own.grad, other.grad, atol=1e-6) for own, other in pairs]
    return all(same + grads)


@pytest.mark.parametrize("change", CHANGES)
def test_defect_05_a_net_trains_the_model_as_it_is(net: altprop.LocalNet, change: str) -> None:
    before = loss_of(net.model)
    CHANGES[change](net.model)
    assert not torch.allclose(before, loss_of(net.model)), "the change changes nothing"
    assert agrees(net)
    assert len(net.compilations.variants) == (1 if change == "a buffer" else 2)


def test_defect_05_globals_and_attributes_of_classes(net: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert agrees(net)
    monkeypatch.setattr(Reader, "share", 2.0)
    assert agrees(net)
    monkeypatch.undo()
    assert agrees(net)
    assert len(net.compilations.variants) == 3


def test_defect_05_what_forward_does_not_read_compiles_nothing(net: altprop.LocalNet) -> None:
    net.model.unread, net.model.settings.unread = 5, 5.0
    net.model.log.append("a line")
    net.model.new, net.model.t = "new", float("1.0")
    net.step(X, Y), net(X), net.backward(X, Y)
    assert len(net.compilations.variants) == 1
    net.double().float()
    net.step(X, Y)
    assert len(net.compilations.variants) == 1


def test_defect_05_what_was_before_is_not_compiled_again(net: altprop.LocalNet) -> None:
    for t in (2.0, 1.0, 2.0, 1.0):
        net.model.t = t
        assert torch.equal(net.step(X, Y), net.step(X, Y))
        assert torch.allclose(net.step(X, Y), loss_of(net.model))
    assert len(net.compilations.variants) == 2


def test_defect_05_a_model_that_was_captured_before_is_looked_at_too() -> None:
    model = Small()
    captured = altprop.capture(model, X)
    net = altprop.compile(captured, rule="dfa")
    model.t = 2.0
    assert torch.allclose(net.backward(X, Y), loss_of(model))
    with pytest.raises(CompileError, match="the model has changed since it was captured: t is another"):
        altprop.compile(captured, rule="dfa")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out, self.t, self.count = nn.Linear(6, 4), nn.Linear(4, 3), 1.0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = self.count + 1 if not self.training else self.count
        found: torch.Tensor = self.out(self.a(x).tanh()) / self.t
        return found


def small(**options: Any) -> altprop.LocalNet:
    return altprop.compile(Small(), rule="dfa", example_inputs=(X,), **options)


def test_defect_05_an_annealed_number_is_said_once_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(altprop.runtime.variants, "LIMIT", STAY)
    net = small(optimizer=altprop.optim.SGD(lr=0.0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(STAY + 2):
            net.model.t = 1.0 + step
            assert torch.allclose(net.step(X, Y), loss_of(net.model))
    (warning,) = said
    assert str(warning.message).startswith(f"t had {STAY} values by now, and for each the net was compiled anew")
    assert len(net.compilations.variants) == STAY


def test_defect_05_copies_and_pickles_have_guards_of_their_own(net: altprop.LocalNet) -> None:
    other = copy.deepcopy(net)
    other.model.settings.gain = 2.0
    assert agrees(other)
    assert agrees(net)
    assert (len(other.compilations.variants), len(net.compilations.variants)) == (2, 1)
    file = io.BytesIO()
    torch.save(small(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    loaded.model.t = 2.0
    assert torch.allclose(loaded.backward(X, Y), loss_of(loaded.model))


def test_defect_05_an_evaluation_that_counts_compiles_nothing() -> None:
    net = small()
    net.eval()(X)
    net.train().backward(X, Y)
    assert net.model.count == 1
    assert len(net.compilations.variants) == 1


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def compiled_mlp() -> altprop.LocalNet:
    return altprop.compile(mlp(), "dfa", example_inputs=(X,), optimizer=altprop.optim.SGD(lr=0.1, momentum=0.9))


@pytest.fixture
def trained(compiled_mlp: altprop.LocalNet) -> altprop.LocalNet:
    net = copy.deepcopy(compiled_mlp)
    net.step(X, Y), net.step(X, Y)
    return net


def moved(net: altprop.LocalNet, layer: nn.Module) -> bool:
    before = copy.deepcopy(list(layer.parameters()))
    net.step(X, Y)
    return not all(map(torch.equal, before, layer.parameters()))


def test_defect_02_a_layer_of_the_same_form_trains_at_once(trained: altprop.LocalNet) -> None:
    old, trained.model[2] = trained.model[2], nn.Linear(8, 8)
    kept = copy.deepcopy(list(old.parameters()))
    momentum = trained.state["momentum:2.weight"]
    assert momentum.any()
    assert moved(trained, trained.model[2])
    assert all(map(torch.equal, kept, old.parameters())), "the detached layer goes on learning"
    assert len(trained.compilations.variants) == 1, "it is the same program"
    assert trained.explain()["2.weight"].how == "local-vjp"
    fresh = copy.deepcopy(trained)
    fresh.model[2] = nn.Linear(8, 8)
    fresh.compilations.find(altprop.runtime.call.Call((X,), {}))
    assert not fresh.state["momentum:2.weight"].any(), "a new layer begins without momentum"
    assert fresh.state["momentum:0.weight"].any()
    trained.train()(X).sum().backward()
    assert trained.model[2].weight.grad is not None


def test_defect_02_layers_of_another_form_are_compiled_anew(trained: altprop.LocalNet) -> None:
    trained.model[0], trained.model[2] = nn.Linear(6, 5), nn.Linear(5, 8)
    assert moved(trained, trained.model[0])
    assert moved(trained, trained.model[2])
    assert trained.feedback["4->0"].shape == (3, 5)
    assert trained.state["momentum:0.weight"].shape == (5, 6)
    assert trained.graph.region("0").shape == ("N", 5)
    trained.model.append(nn.Linear(3, 3))
    assert moved(trained, trained.model[5])
    assert [row.parameter for row in trained.explain().rows][-1] == "5.bias"
    trained.model[2] = nn.Linear(7, 8)
    with pytest.raises(CompileError, match="does not run on the example inputs"):
        trained.step(X, Y)


def test_defect_02_a_parameter_of_another_shape(trained: altprop.LocalNet) -> None:
    trained.model[4].weight = nn.Parameter(torch.randn(5, 8))
    trained.model[4].bias = nn.Parameter(torch.randn(5))
    assert moved(trained, trained.model[4])
    assert trained.model(X).shape == (4, 5)


def test_defect_04_explain_says_what_the_next_step_does(trained: altprop.LocalNet) -> None:
    trained.model[0].requires_grad_(False)
    assert trained.explain()["0.weight"].how == "frozen"
    assert not moved(trained, trained.model[0])
    trained.model[0].requires_grad_(True)
    assert trained.explain()["0.weight"].how == "local-vjp"
    assert [region.name for region in trained.graph.regions] == ["0", "2", "4"]
    assert moved(trained, trained.model[0])


def test_defect_04_what_was_frozen_at_first() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    net = altprop.compile(model, "dfa", example_inputs=(X,))
    model[0].requires_grad_(True)
    assert net.explain()["0.weight"].how == "local-vjp"
    net.backward(X, Y)
    assert model[0].weight.grad is not None


def look(module: nn.Module, given: Any, output: torch.Tensor) -> None:
    """A hook that only looks."""


def double(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


def test_defect_08_a_hook_is_said_once_with_its_module(trained: altprop.LocalNet) -> None:
    trained.model[2].register_forward_hook(look)
    trained.model.register_forward_pre_hook(lambda module, given: None)
    with pytest.warns(
        UserWarning, match=r'lambda.*, a forward pre-hook of "Sequential"; look \(.*, a forward hook of "2"'
    ):
        trained.step(X, Y)
    trained.step(X, Y), trained(X), trained.backward(X, Y)
    trained.model[0].register_full_backward_hook(look)
    with pytest.warns(UserWarning, match='a backward hook of "0"'):
        trained(X)


def test_defect_08_a_hook_that_stood_at_capture_is_in_the_program_until_it_goes() -> None:
    model = mlp()
    handle = model[2].register_forward_hook(double)
    with pytest.warns(UserWarning, match='double .*, a forward hook of "2"'):
        net = altprop.compile(model, "dfa", example_inputs=(X,))
    assert torch.allclose(net.backward(X, Y), loss_of(model))
    handle.remove()
    assert torch.allclose(net.backward(X, Y), loss_of(model))
    assert torch.allclose(net(X), model(X))


@pytest.mark.filterwarnings("ignore:The tensor attribute:UserWarning")  # torch's own word on its own pruning
def test_defect_08_hooks_by_which_torch_makes_weights_are_followed(trained: altprop.LocalNet) -> None:
    prune.random_unstructured(trained.model[2], "weight", 0.5)
    trained.step(X, Y)
    assert "2.weight_orig" in {row.parameter for row in trained.explain().rows}
    assert torch.allclose(trained.backward(X, Y), loss_of(trained.model))
    assert float((trained.model[2].weight == 0).float().mean()) == 0.5


def test_defect_08_hooks_of_parameters_see_what_backward_brings_and_steps_say_so(trained: altprop.LocalNet) -> None:
    weight = trained.model[0].weight
    trained.backward(X, Y)
    plain, weight.grad = weight.grad, None
    weight.register_hook(lambda gradient: 2 * gradient)
    trained.backward(X, Y)
    assert torch.equal(weight.grad, 2 * plain)
    with pytest.warns(UserWarning, match=r"lambda.*, a hook of the parameter 0.weight"):
        trained.step(X, Y)


def test_a_step_like_the_last_walks_over_no_model(trained: altprop.LocalNet, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.step((X,), Y)  # a tuple, so that nothing is made ready
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "named_modules", None)
        trained.step((X,), Y)
    trained.model[2].register_forward_hook(look)
    with pytest.warns(UserWarning, match='a forward hook of "2"'):
        trained.step((X,), Y)


def test_defect_34_functional_call_says_what_it_is(trained: altprop.LocalNet) -> None:
    others = {name: p.detach().clone() for name, p in trained.named_parameters()}
    with pytest.raises(
        CompileError, match=r"0.weight is no parameter now but a tensor, as where torch.func.functional"
    ):
        torch.func.functional_call(trained, others, (X,))

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(trained, parameters, (X,)).sum()

    with pytest.raises(CompileError, match=r"call net.model in the net's place"):
        torch.func.grad(loss)(others)
    own = {name: p.detach() for name, p in trained.model.named_parameters()}
    gradients = torch.func.grad(lambda p: torch.func.functional_call(trained.model, p, (X,)).sum())(own)
    assert gradients["0.weight"].any()
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(trained, others, (X,)), trained.model(X))
    trained.step(X, Y)
