"""Every family of operators compiles, equals autograd by `bp`, and trains by the other rules."""

import kept
import pytest
import torch
from against_autograd import check_against_autograd, check_every_parameter_moves
from choose import third
from torch import nn
from zoo_cases import floats
from zoo_operators import BY_NAME
from zoo_programs import Clip, ScalarLoss

import altprop

# Each with the rule that reads the most of it; `make coverage` runs every rule on every model.
SOME = {
    "conv2d_transposed": "reclra",
    "upsampling": "fa",
    "norms_2d": "dfa",
    "noise": "reclra",
    "embeddings": "fa",
    "rotary": "dfa",
    "lstm_dropout": "reclra",
    "gated": "fa",
    "parametrisations": "dfa",
    "messages": "reclra",
    "frozen_parts": "dfa",
    "detached": "fa",
}


@pytest.mark.parametrize("name", third(BY_NAME))
def test_transpose_feedback_is_autograd(name: str) -> None:
    check_against_autograd(BY_NAME[name])


@pytest.mark.parametrize("name", third(SOME))
def test_other_rules_move_every_parameter(name: str) -> None:
    check_every_parameter_moves(BY_NAME[name], SOME[name])


def test_dropout_between_recurrent_layers_is_kept() -> None:
    graph = kept.compile(
        nn.LSTM(4, 3, 2, dropout=0.5, batch_first=True),
        "bp",
        example_inputs=(torch.randn(4, 3, 4),),
        loss=lambda output, target: output[0].sum(),
    ).graph
    assert sum("dropout" in str(node.target) for node in graph.captured.graph.nodes) == 1


@pytest.mark.parametrize("rule", ["ddtp", "local_loss"])
def test_an_auxiliary_parameter_needs_a_fixed_number_of_units(rule: str) -> None:
    inputs = (floats(4, 7).float(), torch.zeros(4, 5, dtype=torch.int64))
    with pytest.raises(altprop.CompileError, match=f'{rule}: region "image.0" .* has units that depend on the batch'):
        altprop.compile(Clip(), rule, example_inputs=inputs)
    inputs = (floats(4, 7).float(), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(
        altprop.CompileError, match=f'{rule}: region "net.0" hears from "net.2", a scalar, .* use a rule'
    ):
        altprop.compile(ScalarLoss(), rule, example_inputs=inputs, loss=lambda output, target: output)


def test_units_that_depend_on_the_batch() -> None:
    inputs = (floats(4, 7).float(), torch.zeros(4, 5, dtype=torch.int64))
    with pytest.raises(altprop.CompileError, match="units that depend on the batch, so no matrix fits it"):
        altprop.compile(Clip(), "dfa", example_inputs=inputs)
    assert kept.compile(Clip(), "fa", example_inputs=inputs).plan


def test_a_scalar_has_no_error_for_each_sample() -> None:
    inputs = (floats(4, 7).float(), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(altprop.CompileError, match="returns a scalar, which holds no error for each sample"):
        altprop.compile(ScalarLoss(), "dfa", example_inputs=inputs, loss=lambda output, target: output)


class Waves(nn.Module):
    """A Fourier transform between real layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.fft.irfft(torch.fft.rfft(self.first(x)) * 2, n=8))


def test_complex_numbers_inside_are_refused() -> None:
    with pytest.raises(altprop.CompileError, match="computes complex numbers"):
        altprop.compile(Waves(), "bp", example_inputs=(torch.randn(4, 7),))


@pytest.mark.parametrize("rule", ["bp", "dfa"])
def test_slices_as_inputs_and_targets(rule: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    net = kept.compile(model, rule, example_inputs=(floats(4, 5, 4),))
    rows, classes = floats(4, 7, 4)[:, 2:], torch.randint(3, (4, 8))[:, 3:]
    loss = net.backward((rows,), classes)
    sliced = [p.grad.clone() for p in model.parameters()]
    net.zero_grad(set_to_none=True)
    assert torch.equal(net.backward((rows.contiguous(),), classes.contiguous()), loss)
    assert all(torch.equal(one, p.grad) for one, p in zip(sliced, model.parameters(), strict=True))
