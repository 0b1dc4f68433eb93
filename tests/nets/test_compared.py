"""What is compiled elsewhere is compared with the program, once for each form of its inputs."""

import pytest
import torch
from torch import nn

import altprop
from altprop.runtime.backends import inductor


@pytest.fixture
def broken(monkeypatch):
    """A compiler whose code adds to one result what `wrong` says."""
    wrong = {"by": 0.0, "runs": 0, "nudge": 0.0}

    def compile_wrongly(module, **options):
        def run(*args):
            wrong["runs"] += 1
            if wrong["nudge"]:
                weight = next(arg for arg in args if isinstance(arg, torch.Tensor) and arg.shape == (5, 7))
                weight.detach()[:, 0] *= 1 - wrong["nudge"]
            made = list(module(*args))
            if wrong["by"] and any(
                arg.dim() == 2 and arg.shape == (5, 7) for arg in args if isinstance(arg, torch.Tensor)
            ):
                weight = next(a for a in args if isinstance(a, torch.Tensor) and a.shape == (5, 7))
                weight.detach().add_(wrong["by"])
            return tuple(made)

        return run

    monkeypatch.setattr(inductor.torch, "compile", compile_wrongly)
    return wrong


def net_of(dropout=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3))
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    return altprop.compile(model, "dfa", example_inputs=(torch.randn(4, 7),), optimizer=optimizer, backend="inductor")


def test_defect_18_a_wrong_first_step_is_refused_and_moves_nothing(broken):
    net = net_of()
    broken["by"] = 1.0
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(
        altprop.CompileError, match=r'not the program "step": the parameter 0\.weight differs by .* of its'
    ):
        net.step(torch.randn(4, 7), torch.tensor([0, 1, 2, 0]))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_defect_18_each_form_is_compared_once(broken):
    net = net_of()
    for samples in (4, 4, 6, 4, 6):
        net.step(torch.randn(samples, 7), torch.randint(3, (samples,)))
    assert broken["runs"] == 5 + 2
    broken["by"] = 1.0
    with pytest.raises(altprop.CompileError, match="not the program"):
        net.step(torch.randn(8, 7), torch.randint(3, (8,)))


def test_defect_18_masks_are_the_same_on_both_sides(broken):
    net = net_of(dropout=0.5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    net.step(torch.randn(4, 7), torch.randint(3, (4,)))
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())


def net_at_a_kink():
    """A net with relus, and inputs for which the units of the first layer are off zero by their last bits alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:, 0] = 0.5
        model[0].weight[:, 1] = -0.5 * (1 - 2.0**-23)
    optimizer = altprop.optim.SGD(lr=0.1, momentum=0.9)
    inputs = torch.ones(4, 7)
    return altprop.compile(model, "dfa", example_inputs=(inputs,), optimizer=optimizer, backend="inductor"), inputs


def test_a_unit_that_rounding_turns_off_is_no_wrong_code(broken):
    net, inputs = net_at_a_kink()
    broken["nudge"] = 2.0**-22
    assert net.step(inputs, torch.tensor([0, 1, 2, 0])).isfinite()


def test_where_no_unit_stands_at_a_kink_the_same_change_is_too_much(broken):
    net = net_of()
    broken["nudge"] = 0.02
    with pytest.raises(altprop.CompileError, match="where rounding explains"):
        net.step(torch.randn(4, 7), torch.tensor([0, 1, 2, 0]))
