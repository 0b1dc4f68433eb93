"""What a batch may not hold: each case is one sentence of altprop's, not torch's own error."""

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import altprop

pytestmark = pytest.mark.third

X = torch.randn(4, 6)
CLASSES = torch.tensor([0, 1, 2, 0])


def net(rule: str = "dfa", loss: str = "cross_entropy", **options: str) -> altprop.LocalNet:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return kept.compile(model, rule, example_inputs=(X,), loss=loss, optimizer=altprop.optim.SGD(lr=0.1), **options)


@pytest.mark.parametrize("rule", ["bp", "dfa", "drtp"])
@pytest.mark.parametrize("wrong", [3, -1])
def test_a_class_that_the_output_does_not_have(rule: str, wrong: int) -> None:
    made, target = net(rule), torch.tensor([0, wrong, 2, 1])
    message = rf"the target holds the class {wrong}, and the output has scores of 3 classes, 0 to 2"
    with pytest.raises(altprop.CompileError, match=message):
        made.step(X, target)
    with pytest.raises(altprop.CompileError, match=message):
        made.backward(X, target)


@pytest.mark.parametrize("wrong", [3, -1])
def test_onnxruntime_is_not_given_a_wrong_class(wrong: int) -> None:
    made = net(backend="onnxruntime")
    made.step(X, CLASSES)
    with pytest.raises(altprop.CompileError, match=f"the target holds the class {wrong}, and the output has scores"):
        made.step(X, torch.tensor([-100, 0, wrong, 1]))
    assert torch.isfinite(made.step(X, torch.tensor([0, -100, 2, 1])))
    assert made.state.count == 2  # the refused batch was no step


@pytest.mark.parametrize("wrong", [9, -1])
def test_onnxruntime_is_not_given_a_wrong_word(wrong: int) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    words, sgd = torch.zeros(4, 2, dtype=torch.int64), altprop.optim.SGD(lr=0.1)
    made = kept.compile(model, "dfa", example_inputs=(words,), backend="onnxruntime", optimizer=sgd)
    made.step(words, CLASSES)
    words[2, 1] = wrong
    with pytest.raises(altprop.CompileError, match=rf"input holds {wrong}, and 0\.weight has the rows 0 to 4"):
        made.step(words, CLASSES)


def test_a_sample_to_be_left_out_is_no_wrong_class() -> None:
    assert torch.isfinite(net().step(X, torch.tensor([0, -100, 2, 1])))


def test_a_class_of_a_loss_of_ones_own() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    made = kept.compile(model, "dfa", example_inputs=(X,), loss=nn.CrossEntropyLoss())
    with pytest.raises(altprop.CompileError, match="the target holds the class 7, and the output has scores of 3"):
        made.backward(X, torch.tensor([0, 7, 2, 1]))


def test_a_word_that_the_embedding_does_not_have() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    words = torch.zeros(4, 2, dtype=torch.int64)
    made = kept.compile(model, "dfa", example_inputs=(words,))
    for run in (lambda: made.backward(words + 9, CLASSES), lambda: made(words + 9)):
        with pytest.raises(altprop.CompileError, match=r"input holds 9, and 0\.weight has the rows 0 to 4"):
            run()


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        ("cross_entropy", torch.zeros(4, 7), r"\(N, 3\) and a target of shape \(N, 7\).* must have the output's shape"),
        ("cross_entropy", torch.zeros(4, 1, dtype=torch.int64), r"without the dimension of classes"),
        ("cross_entropy", torch.zeros(4), r"must have the output's shape, or hold classes as int64"),
        (
            "cross_entropy",
            CLASSES.to(torch.int32),
            r"torch\.int32: the target must hold classes as int64: target\.long",
        ),
        ("cross_entropy", CLASSES.to(torch.uint8), r"torch\.uint8: the target must hold classes as int64"),
        ("cross_entropy", [0, 1, 2, 0], r"the target is a list, not a tensor"),
        ("cross_entropy", None, r"the loss takes a target, and None was given"),
        ("mse", torch.zeros(4, 7), r"the loss mse does not fit .* the target must have the output's shape"),
        ("mse", torch.zeros(4, 1), r"the target must have the output's shape"),
        ("mse", torch.zeros(4), r"the target must have the output's shape"),
        ("bce_with_logits", torch.zeros(4, 7), r"the target must have the output's shape"),
    ],
)
def test_a_target_that_does_not_fit(loss: str, target: object, message: str) -> None:
    with pytest.raises(altprop.CompileError, match=message):
        net(loss=loss).step(X, target)


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((4, 5, 3), torch.zeros(4, 5, dtype=torch.int64)),
        ((4, 3), torch.softmax(torch.randn(4, 3), 1)),
        ((4, 3, 2, 2), torch.zeros(4, 2, 2, dtype=torch.int64)),
    ],
)
def test_targets_that_do_fit(shape: tuple[int, ...], target: torch.Tensor) -> None:
    model = nn.Sequential(nn.Linear(6, 12), nn.Linear(12, torch.Size(shape[1:]).numel()), nn.Unflatten(1, shape[1:]))
    made = kept.compile(model, "bp", example_inputs=(X,))
    assert torch.isfinite(made.backward(X, target))


def test_an_output_that_does_not_fit_the_loss() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Flatten(0))
    made = kept.compile(model, "bp", example_inputs=(X,), loss=lambda output, target: (output - target).sum())
    with pytest.raises(altprop.CompileError, match=r"does not fit output and target of shapes \(3\*N\), \(N, 9\)"):
        made.backward(X, torch.zeros(4, 9))


def test_a_derivative_of_a_derivative() -> None:
    made = net("bp")
    loss = F.cross_entropy(made(X), CLASSES)
    with pytest.raises(altprop.CompileError, match="a local program has no derivative of a derivative"):
        torch.autograd.grad(loss, list(made.model.parameters()), create_graph=True)


class Masked(nn.Module):
    """Reads and writes what masks select."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.first(x)).clone()
        z[z > 0.5] = 0.0
        rows = torch.nonzero(x[:, 0] > 0).squeeze(1)
        return self.second(z).index_add(0, rows, self.second(z[rows])) + z[z > 0].sum()


def test_masks_compile() -> None:
    """How many values a mask selects is known when the program runs; nothing of it is fixed at compile time."""
    model = Masked().double()
    made = kept.compile(model, "bp", example_inputs=(X.double(),))
    for batch in (4, 9):
        x, target = torch.randn(batch, 6, dtype=torch.float64), torch.randint(3, (batch,))
        model.zero_grad()
        F.cross_entropy(model(x), target).backward()
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        made.backward(x, target)
        assert all(
            torch.allclose(p.grad, wanted, atol=1e-12) for p, wanted in zip(model.parameters(), expected, strict=True)
        )
