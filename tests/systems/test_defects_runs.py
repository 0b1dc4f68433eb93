"""Runs and machines that went wrong once, each by its number: threads, replicas, folders, kills."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import altprop


def small_net(**options: Any) -> altprop.LocalNet:
    """A compiled net of two layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return altprop.compile(model, rule="dfa", example_inputs=(torch.randn(8, 6),), **options)


def in_threads(work: Callable[[int], Any], count: int) -> list[Any]:
    """What `work` returns, or raises, in so many threads that begin together."""
    found: list[Any] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_defect_25_four_threads_compile_at_once() -> None:
    found = in_threads(lambda number: small_net(), 4)
    assert [type(one) for one in found] == [altprop.LocalNet] * 4


def test_defect_25_threads_share_a_net_that_compiles_at_its_first_call() -> None:
    x = torch.randn(8, 6)
    net = altprop.compile(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), rule="dfa")
    found = in_threads(lambda number: net(x), 3)
    assert all(torch.equal(one, found[0]) for one in found)
    assert len(net._variants) == 1


class Doubled(torch.autograd.Function):
    """A user's own function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Interrupted(nn.Module):
    """Lets another thread do something while it is traced; `part` makes (..., 6) of (..., 6)."""

    def __init__(self, part: nn.Module, meanwhile: Callable[[], Any]) -> None:
        super().__init__()
        self.part, self.last = part, nn.Linear(6, 3)
        self.meanwhile = meanwhile

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, FakeTensor):
            in_threads(lambda number: self.meanwhile(), 1)
        return self.last(self.part(x))


class Masked(nn.Module):
    """An encoder with a causal mask, or with one that hides nothing."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), 1)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(size) if self.causal else torch.zeros(size, size)
        return self.encoder(x, mask=mask)


class Recurrent(nn.Module):
    """An RNN without its state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def test_defect_25_other_threads_train_while_one_compiles() -> None:
    x, net, done = torch.randn(8, 6), small_net(), []

    def meanwhile() -> None:
        Doubled.apply(torch.ones(2, requires_grad=True)).sum().backward()
        net(x).sum().backward()
        done.append(True)

    assert altprop.examine(Interrupted(nn.Identity(), meanwhile), (x,)).ok
    assert done


def test_defect_25_other_threads_make_recurrent_layers_while_one_compiles() -> None:
    x, made = torch.randn(2, 2, 6), []
    model = Interrupted(Recurrent(), lambda: made.append(Recurrent()))
    assert altprop.examine(model, (x,)).ok
    made[0](x).sum().backward()


def test_defect_25_other_threads_mask_while_one_compiles() -> None:
    x, other = torch.randn(2, 2, 6), Masked(causal=False)
    expected = other(x)[:, 0].detach()
    seen = []
    model = Interrupted(Masked(causal=True), lambda: seen.append(other(x)))
    assert altprop.examine(model, (x,)).ok
    torch.testing.assert_close(seen[0][:, 0], expected)
