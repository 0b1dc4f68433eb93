"""Error reductions of `net.measure`: by hand, and what they leave as it was."""

import copy
import math

import kept
import pytest
import torch
from torch import nn
from torch.nn import functional

import altprop
from altprop.training.plots import plot_reductions, reduction_rows


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 6), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(6, 5)).double()


def compiled(rule: str = "dfa", **options: object) -> altprop.LocalNet:
    return kept.compile(model(), rule=rule, example_inputs=(torch.zeros(2, 12).double(),), **options)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(24, 12, generator=generator).double(), torch.randint(0, 5, (24,), generator=generator)


@pytest.fixture(scope="module")
def net() -> altprop.LocalNet:
    return compiled(optimizer=altprop.optim.Adam(lr=0.03))


MOVED = {"6": ("6.",), "4": ("4.",), "0": ("0.", "1.")}


def loss_at(theta: nn.Module, after: nn.Module, names: list[str], given: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The loss where some regions have moved, by plain torch, with the masks of the present random state."""
    mixed = copy.deepcopy(theta)
    starts = tuple(start for name in names for start in MOVED[name])
    moved = {name: value for name, value in after.named_parameters() if name.startswith(starts)}
    mixed.load_state_dict({**mixed.state_dict(), **{name: value.detach() for name, value in moved.items()}})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return float(functional.cross_entropy(mixed(given[0]), given[1]))


def stepped(net: altprop.LocalNet) -> nn.Module:
    other = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        other.step(*batch())
    return other.model


def test_isolated_reductions_by_hand(net):
    after, before = stepped(net), loss_at(net.model, net.model, [], batch())
    measured = net.measure(*batch(), reductions=True)
    for name, row in measured.regions.items():
        expected = (before - loss_at(net.model, after, [name], batch())) / before
        assert row.ger == pytest.approx(expected, abs=1e-12)
        assert abs(expected) > 1e-4
    whole = (before - loss_at(net.model, after, list(MOVED), batch())) / before
    assert measured.reduction == pytest.approx(whole, abs=1e-12)
    alone = sum(row.ger for row in measured.regions.values())
    assert measured.interaction == pytest.approx(whole - alone, abs=1e-12)


def test_cumulative_reductions_go_in_update_order_and_add_up(net):
    after, before = stepped(net), loss_at(net.model, net.model, [], batch())
    measured = net.measure(*batch(), reductions=True, mode="cumulative")
    done, last = [], before
    for name in net.plan.order():
        done.append(name)
        now = loss_at(net.model, after, done, batch())
        assert measured.regions[name].ger == pytest.approx((last - now) / before, abs=1e-12)
        last = now
    assert sum(row.ger for row in measured.regions.values()) == pytest.approx(measured.reduction, abs=1e-12)
    assert measured.interaction == pytest.approx(net.measure(*batch(), reductions=True).interaction, abs=1e-12)


def test_local_reduction_by_hand():
    """Plain SGD on the last layer of a net without masks, whose target is known in closed form."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    net = kept.compile(plain, rule="reclra", example_inputs=(torch.zeros(2, 12).double(),), plan="chain")
    x, y = batch()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5, momentum=0.9)
    row = net.measure(x, y, reductions=True, optimizer=optimizer).regions["2"]
    h = torch.tanh(plain[0](x)).detach()
    z = plain[2](h).detach()
    e = torch.softmax(z, 1) - functional.one_hot(y, 5)
    weight = plain[2].weight.detach() - 0.5 * e.T @ h / 24
    bias = plain[2].bias.detach() - 0.5 * e.sum(0) / 24
    distance = h @ weight.T + bias - (z - e)
    assert row.ler == pytest.approx(float(1 - distance.square().sum() / e.square().sum()), abs=1e-12)
    assert not optimizer.state
    assert all(p.grad is None for p in net.parameters())


def test_nothing_is_altered(net):
    net.step(*batch())
    net.model[0].weight.grad = torch.ones_like(net.model[0].weight)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.get_rng_state()
    net.measure(*batch(), reductions=True)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert net.model[0].weight.grad.sum() == 96


def test_a_rate_that_is_too_high_shows_as_interaction():
    """Each region's part of the step lowers the loss, and all of them together raise it."""
    net = compiled("bp", optimizer=altprop.optim.SGD(lr=0.05))
    low = net.measure(*batch(), reductions=True)
    net.optimizer.lr = 10.0
    high = net.measure(*batch(), reductions=True)
    assert abs(low.interaction) < 0.05 * abs(low.reduction)
    assert high.reduction < 0 < high.reduction - high.interaction


def test_refusals():
    net = compiled()
    with pytest.raises(altprop.CompileError, match="compiled without an optimizer"):
        net.measure(*batch(), reductions=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(altprop.CompileError, match='choose "isolated" or "cumulative"'):
        net.measure(*batch(), reductions=True, mode="joint", optimizer=optimizer)


def test_columns_are_there_where_they_were_measured(net, tmp_path):
    plain, full = net.measure(*batch()), net.measure(*batch(), reductions=True)
    assert math.isnan(plain.interaction)
    assert "ger" not in str(plain)
    assert str(full).splitlines()[2].split()[-2:] == ["ler", "ger"]
    assert "interaction" in str(full)
    heads = [one.to_csv(tmp_path / "rows.csv").read_text().splitlines()[0] for one in (plain, full)]
    assert [head.endswith(",ler,ger") for head in heads] == [False, True]
    assert plain.regions["0"].global_reduction == plain.regions["0"].global_slope
    assert plain.regions["0"].local_reduction == plain.regions["0"].local_slope


def test_a_picture_has_a_line_a_region(net, tmp_path):
    rows = [row for step in (1, 2) for row in reduction_rows(1, step, net.measure(*batch(), reductions=True))]
    assert [row["region"] for row in rows] == ["0", "4", "6"] * 2
    picture = tmp_path / "reductions.svg"
    figure = plot_reductions(picture, rows)
    assert picture.exists()
    assert [len(axes.lines) for axes in figure.axes] == [3, 4]
