"""A backend of one's own: one class, and no change to the library."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import fx, nn

import altprop
from altprop import backends
from altprop.runtime.backends import table

X, Y = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Counter(fx.Interpreter):
    """Runs a program operator by operator, and counts them."""

    ran = 0

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Runs one operator."""
        Counter.ran += 1
        return super().call_function(target, args, kwargs)


class Counting(backends.Backend):
    """Counts operators, and runs them as eager does."""

    name = "counting"
    refused = ""

    def check(self, device: torch.device, loss: Any) -> None:
        """Refuses what a test says."""
        if self.refused:
            raise altprop.CompileError(f"{self.refused}: on {device}, with {loss.name}")

    def prepare(self, program: Any, bindings: Any) -> backends.Executor:
        """Returns the program with a count."""
        return backends.Executor(program, bindings, Counter(program.graph).run)


class CountingOnNumbers(Counting):
    """The same, asking for other programs."""

    name = "counting on numbers"
    wants = backends.Wants(tensor_scalars=True, fused_updates=False, reused_memory=False)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(table._TABLE)
    backends.register(Counting())
    yield
    table._TABLE.clear()
    table._TABLE.update(before)


def make(backend: Any) -> altprop.LocalNet:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    return altprop.compile(model, rule="dfa", example_inputs=(X,), optimizer=optimizer, backend=backend)


@pytest.fixture(scope="module")
def eager() -> tuple[list[float], torch.Tensor]:
    net = make("eager")
    return [float(net.step(X, Y)) for _ in range(3)], net.model[0].weight.detach()


@pytest.mark.usefixtures("registered")
def test_it_counts_and_computes_what_eager_does(eager: Any) -> None:
    net = make("counting")
    assert net.backend.name == "counting"
    Counter.ran = 0
    assert [float(net.step(X, Y)) for _ in range(3)] == eager[0]
    assert torch.equal(net.model[0].weight, eager[1])
    operators = [node for node in net.graph.programs["step"].graph.graph.nodes if node.op == "call_function"]
    assert Counter.ran == 3 * len(operators) > 0
    torch.nn.functional.cross_entropy(net(X), Y).backward()
    assert Counter.ran > 3 * len(operators)


def test_programs_are_made_as_it_wants(eager: Any) -> None:
    net = make(CountingOnNumbers())
    torch.testing.assert_close(torch.tensor([float(net.step(X, Y)) for _ in range(3)]), torch.tensor(eager[0]))
    text = str(net.graph.programs["step"])
    assert "aten.addmm_(" not in text
    assert "aten.addmm_(" in str(make("eager").graph.programs["step"])


def test_it_travels_with_the_net() -> None:
    backend = Counting()
    net = make(backend)
    assert copy.deepcopy(net).backend is backend
    copied = pickle.loads(pickle.dumps(net))
    assert type(copied.backend) is Counting
    assert float(copied.step(X, Y)) == float(net.step(X, Y))


def test_it_refuses_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make(Counting())
    monkeypatch.setattr(Counting, "refused", "not today")
    net.backward(X, Y)
    with pytest.raises(altprop.CompileError, match="not today: on cpu, with cross_entropy"):
        net.step(X, Y)
    assert net.state.count == 0


@pytest.mark.usefixtures("registered")
def test_the_table() -> None:
    assert backends.available() == ("eager", "inductor", "cudagraphs", "onnxruntime", "counting")
    assert str(backends.get("counting")) == "counting"
    with pytest.raises(altprop.CompileError, match=r'CountingAgain cannot be registered: another .* called "counting"'):
        backends.register(type("CountingAgain", (backends.Backend,), {"name": "counting"})())
    with pytest.raises(altprop.CompileError, match="Nameless cannot be registered: a backend needs a name"):
        backends.register(type("Nameless", (backends.Backend,), {})())
    with pytest.raises(altprop.CompileError, match=r"is no backend: register an object"):
        backends.register(Counting)  # type: ignore[arg-type]
    with pytest.raises(altprop.CompileError, match=r"backend=3: give the name of a backend"):
        make(3)
