"""Mistakes of existing systems, by number: state, processes and copies (13 to 15)."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traps_systems import OPTIMIZERS, RULES, batch, make_model, make_net
from zoo import ZOO
from zoo_small import tuple_loss, two_targets

import altprop

pytestmark = pytest.mark.third


def train(net: altprop.LocalNet, first: int, last: int) -> None:
    for index in range(first, last):
        net.step(*batch(index))


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    assert list(one.state_dict()) == list(expected)
    for key, value in one.state_dict().items():
        assert torch.equal(value, expected[key]), key


# 13: checkpoints


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_trap_13_a_resume_takes_the_same_steps(rule: str, optimizer: str) -> None:
    net = make_net(make_model(), rule, optimizer)
    train(net, 0, 3)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    resumed = make_net(make_model(seed=1), rule, optimizer, seed=1)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_same_state(resumed, net)
    train(net, 3, 6)
    train(resumed, 3, 6)
    assert_same_state(resumed, net)


def test_trap_13_state_holds_feedback_and_optimizer() -> None:
    net = make_net(make_model())
    keys = set(net.state_dict())
    assert {f"model.{key}" for key in net.model.state_dict()} < keys
    assert {"feedback.4->2", "feedback.4->0"} < keys
    states = {key for key in keys if key.startswith("state.momentum")}
    assert len(states) == 6 + 2


def test_trap_13_a_loss_of_ones_own_resumes_too() -> None:
    """The form of the target is not known before the first step; optimizer state must be there all the same."""
    case = ZOO["tuple_output"]
    (x,) = case.inputs(4)
    target = two_targets(4)

    def make() -> altprop.LocalNet:
        return make_net(case.model(), loss=tuple_loss, example_inputs=(x,))

    net = make()
    net.step(x, target)
    resumed = make()
    resumed.load_state_dict(net.state_dict())
    net.step(x, target)
    resumed.step(x, target)
    assert_same_state(resumed, net)


def test_trap_13_plain_checkpoints_still_load() -> None:
    plain = make_model(seed=3).state_dict()
    model = make_model()
    keys = list(model.state_dict())
    net = make_net(model)
    train(net, 0, 2)
    assert net.model is model
    assert list(model.state_dict()) == keys == list(plain)
    net.model.load_state_dict(plain)
    fresh = make_model(seed=3)
    assert torch.equal(net(batch()[0]), fresh(batch()[0]))
    fresh.load_state_dict(net.model.state_dict())


def test_trap_13_state_without_a_capture_is_refused() -> None:
    state = make_net(make_model()).state_dict()
    late = altprop.compile(make_model(), "reclra", optimizer=OPTIMIZERS["sgd"]())
    with pytest.raises(altprop.CompileError, match="exists only after capture: pass example_inputs="):
        late.load_state_dict(state)


# 14: feedback that depends on the process, stays behind, or comes late


FINGERPRINT = """
import hashlib, torch, altprop
from torch import nn
torch.manual_seed({noise})
model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))
net = altprop.compile(model, "{rule}", example_inputs=(torch.randn(4, 7),), seed=11)
digest = hashlib.sha256()
for name, matrix in net.feedback.items():
    digest.update(name.encode() + matrix.detach().numpy().tobytes())
print(len(net.feedback), digest.hexdigest())
"""


def fingerprint(rule: str, noise: int) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FINGERPRINT.format(noise=noise, rule=rule)],
        env={"PYTHONHASHSEED": str(noise), "PATH": "", "OMP_NUM_THREADS": "1", "ALTPROP_CACHE": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.full
def test_trap_14_every_process_draws_the_same_feedback() -> None:
    one, other = fingerprint("dfa", 1), fingerprint("dfa", 2)
    assert one.startswith("2 ")
    assert one == other


def test_trap_14_feedback_depends_on_seed_and_connection_alone() -> None:
    small = make_net(make_model(), "dfa", seed=4).feedback["4->0"]
    again = make_net(make_model(seed=9), "reclra", seed=4).feedback["4->0"]
    other = make_net(make_model(), "dfa", seed=5).feedback["4->0"]
    assert torch.equal(small, again)
    assert not torch.equal(small, other)


def test_trap_14_feedback_moves_with_the_net() -> None:
    net = make_net(make_model())
    names = list(net.feedback)
    net.double()
    assert {matrix.dtype for matrix in net.feedback.values()} == {torch.float64}
    x, y = batch()
    net.step(x.double(), y)
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    assert {v.dtype for k, v in net.state_dict().items() if "momentum" in k} == {torch.float64}
    assert list(net.feedback) == names
    net.to("meta")
    assert {p.device.type for p in net.parameters()} == {"meta"}


@pytest.mark.parametrize("rule", RULES)
def test_trap_14_nothing_is_made_after_construction(rule: str) -> None:
    net = make_net(make_model(), rule)
    keys, objects = list(net.state_dict()), [id(p) for p in net.parameters()]
    train(net, 0, 2)
    F.cross_entropy(net(batch()[0]), batch()[1]).backward()
    assert list(net.state_dict()) == keys
    assert [id(p) for p in net.parameters()] == objects


def test_trap_14_replaced_parameters_are_found() -> None:
    net = make_net(make_model(), "dfa")
    train(net, 0, 1)
    last = net.model.get_submodule("4")
    last.weight = nn.Parameter(torch.zeros(3, 5))
    old = last.weight.detach().clone()
    train(net, 1, 2)
    assert not torch.equal(last.weight, old)
    assert torch.equal(net(batch()[0]), net.model(batch()[0]))


# 15: autocast, float64, torch.compile, copies


@pytest.mark.parametrize("rule", ["bp", "dfa", "reclra"])
def test_trap_15_bfloat16_autocast(rule: str) -> None:
    net = make_net(make_model(), rule)
    x, y = batch()
    full = copy.deepcopy(net)
    F.cross_entropy(full(x), y).backward()
    reference = copy.deepcopy(net.model)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
        loss = F.cross_entropy(output, y)
        expected = reference(x)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)
    loss.backward()
    for name, parameter in net.model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        wanted = full.model.get_parameter(name).grad
        assert wanted is not None
        assert not torch.equal(parameter.grad, wanted)
        assert float((parameter.grad - wanted).norm()) < 0.05 * float(wanted.norm())


def test_trap_15_autocast_in_the_program() -> None:
    net = make_net(make_model(), "dfa")
    plain = copy.deepcopy(net)
    with torch.autocast("cpu", torch.bfloat16):
        for index in range(3):
            net.step(*batch(index))
    train(plain, 0, 3)
    for key, value in net.state_dict().items():
        assert value.dtype == plain.state_dict()[key].dtype
        assert torch.allclose(value.float(), plain.state_dict()[key].float(), atol=0.02)


@pytest.mark.parametrize("rule", ["dfa", "reclra"])
def test_trap_15_double_precision(rule: str) -> None:
    single, twice = (
        make_net(make_model(), rule),
        make_net(make_model().double(), rule, example_inputs=(batch()[0].double(),)),
    )
    train(single, 0, 3)
    for index in range(3):
        x, y = batch(index)
        twice.step(x.double(), y)
    for key, value in twice.state_dict().items():
        assert torch.allclose(single.state_dict()[key].double(), value.double(), atol=1e-5)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_trap_15_inductor_equals_eager() -> None:
    eager = make_net(make_model(), "dfa")
    fused = make_net(make_model(), "dfa", backend="inductor")
    x, y = batch()
    for index in range(2):
        assert torch.allclose(fused.step(*batch(index)), eager.step(*batch(index)), atol=1e-6)
    assert torch.allclose(fused.step(x[:3], y[:3]), eager.step(x[:3], y[:3]), atol=1e-6)
    for key, value in fused.state_dict().items():
        assert torch.allclose(value, eager.state_dict()[key], atol=1e-5), key


COPIES: dict[str, Callable[[altprop.LocalNet], altprop.LocalNet]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("rule", RULES)
def test_trap_15_copies_in_mid_training_go_on_alike(rule: str, kind: str) -> None:
    net = make_net(make_model(), rule, "adamw")
    train(net, 0, 3)
    made = COPIES[kind](net)
    assert_same_state(made, net)
    assert {id(p) for p in made.parameters()}.isdisjoint(id(p) for p in net.parameters())
    before = copy.deepcopy(net.state_dict())
    train(made, 3, 6)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), f"training the copy moved {key} of the original"
    train(net, 3, 6)
    assert_same_state(made, net)
