"""The direct Kolen-Pollack paper's tables: AlexNet, and weights and feedback that move by optimizers of their own."""

import copy
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import dkp_table
from published_models import AlexNet


def job(data: str, row: str) -> dkp_table.Job:
    return dkp_table.Job(data, row, 0, 1, "cpu", "eager", 1, math.inf, None, Path("runs"))


@pytest.fixture(scope="module")
def alexnet() -> torch.nn.Module:
    """A narrow AlexNet by DKP, before training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dkp_table, "AlexNet", lambda: AlexNet(10, 16))
        return dkp_table.compiled(job("cifar100", "dkp"), (3, 32, 32), torch.zeros(2, 3, 32, 32))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4)


def test_feedback_moves_by_adam_and_weights_by_sgd(alexnet):
    net = copy.deepcopy(alexnet)
    before = {name: value.detach().clone() for name, value in net.net.feedback.items()}
    start = net.net.model.fc[2].weight.detach().clone()
    net.step(*batch())
    moved = torch.cat([(net.net.feedback[name].detach() - value).flatten() for name, value in before.items()]).abs()
    assert moved.max() == pytest.approx(5e-4, rel=1e-2)  # Adam's first step, whatever the gradient
    step = (net.net.model.fc[2].weight.detach() - start).abs()
    assert step.max() > 0
    assert step.max() / step.median() > 2  # SGD's is as large as the gradient


def test_a_net_with_two_optimizers_goes_on_where_it_was(alexnet):
    one, other = copy.deepcopy(alexnet), copy.deepcopy(alexnet)
    torch.manual_seed(0)
    one.step(*batch())
    other.load_state_dict(one.state_dict())
    losses = []
    for net in (one, other):
        torch.manual_seed(1)
        losses += [float(net.step(*batch())), float(net.step(*batch()))]
    assert losses[:2] == losses[2:]
    one.net.eval()
    other.net.eval()
    assert torch.equal(one(batch()[0]), other(batch()[0]))


def test_rows_take_the_rates_that_the_paper_says():
    rates = {row: job("cifar100", row).settings for row in dkp_table.ROWS}
    slow = {row: own["lr"] for row, own in rates.items() if own["lr"] != 0.1}
    assert slow == {"dfa": 0.01, "dkp": 0.01, "drtp": 0.01}
    assert (rates["dkp"]["feedback_lr"], rates["dkp"]["weight_decay"]) == (5e-4, 1e-4)
    assert job("cifar10", "dkp").settings["feedback_lr"] == 1e-4
    assert AlexNet()(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_the_head_alone_is_that_of_either_network():
    for model in (AlexNet(10, 16), dkp_table.ConvNet((3, 32, 32))):
        learning = [name for name, p in dkp_table.head_only(model).named_parameters() if p.requires_grad]
        assert learning
        assert all(name.startswith(("fc", "norm3")) for name in learning)
