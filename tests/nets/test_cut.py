"""Where regions end: golden texts of the cut of real architectures, and models that have no good cut."""

from collections.abc import Callable

import kept
import pytest
import torch
from cutting import cut
from tiny import MODELS
from torch import nn
from zoo import ZOO

import altprop

pytestmark = pytest.mark.third

Golden = Callable[[str, str], None]


@pytest.mark.parametrize("name", ["gpt2_eager", "bert_sdpa", "vit_sdpa", "resnet18"])
def test_architectures(golden: Golden, name: str) -> None:
    torch.manual_seed(0)
    golden(f"cut-{name}", str(cut(ZOO[name].model(), ZOO[name].inputs(4))))


@pytest.mark.parametrize("regions", ["layer", "operator", "block"])
def test_two_encoder_layers(golden: Golden, regions: str) -> None:
    layers = [nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True) for _ in range(2)]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    golden(f"cut-encoder-{regions}", str(cut(model, (torch.randn(4, 6, 8),), regions)))


@pytest.mark.parametrize("name", ["gpt2_sdpa", "gpt2_eager", "bert_sdpa", "bert_eager", "vit_sdpa", "vit_eager"])
def test_attention_is_one_region_with_its_projections(name: str) -> None:
    torch.manual_seed(0)
    regions = cut(ZOO[name].model(), ZOO[name].inputs(4)).regions
    found = [region for region in regions if "attn" in region.name or "attention" in region.name]
    assert found
    for region in found:
        assert len(region.shape) == 3, "an error for every position"
        assert region.shape[0] == "N"
        assert any("proj" in p or "output" in p or "o_proj" in p for p in region.parameters), region.parameters


def test_a_classifier_behind_attention_is_a_region_of_its_own() -> None:
    class Pooled(nn.Module):
        """Attention without a projection of its own behind it."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = (self.q(x) @ self.k(x).mT).softmax(-1)
            return self.out((weights @ self.v(x)).mean(1))

    assert [r.name for r in cut(Pooled(), (torch.randn(4, 5, 4),)).regions] == ["q+k+v", "out"]


def test_a_product_that_is_no_attention_stands_alone() -> None:
    class Crossed(nn.Module):
        """Two towers that meet in a product, and layers behind it."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 6)
            self.deep, self.out = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            meeting = (self.one(x) @ self.two(x).mT).sum(1)
            return self.out(torch.tanh(self.deep(meeting)))

    assert [r.name for r in cut(Crossed(), (torch.randn(4, 5, 4),)).regions] == ["one+two", "deep", "out"]


class Windows(nn.Module):
    """Two layers on windows that are folded into the batch, so that samples do not stand apart between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        x = x.reshape(n * 2, length // 2, width)
        x = x + self.down(torch.tanh(self.up(x)))
        return x.reshape(n, length, width)


class Folded(nn.Module):
    """Two blocks of such layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(3, 4), nn.Linear(4, 3)
        self.blocks = nn.Sequential(Windows(), Windows())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.blocks(self.embed(x)).mean(1))


def test_examine_says_that_there_is_no_good_cut_and_offers_blocks() -> None:
    x = torch.randn(4, 6, 3)
    report = altprop.examine(Folded(), (x,))
    (finding,) = [f for f in report.findings if f.level == "warning"]
    assert str(finding) == (
        "warning: no good cut: blocks.0 holds one layer behind another (blocks.0.up.weight, blocks.0.up.bias, "
        "blocks.0.down.weight, blocks.0.down.bias); blocks.1 holds one layer behind another (blocks.1.up.weight, "
        "blocks.1.up.bias, blocks.1.down.weight, blocks.1.down.bias). "
        'Use regions="block", which cuts it into embed, blocks.0, blocks.1, out'
    )
    assert not [f for f in altprop.examine(Folded(), (x,), regions="block").findings if f.level == "warning"]


def test_examine_says_where_no_coarser_cut_helps() -> None:
    class Points(nn.Module):
        """Every point of a cloud alike, then the largest of all."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, points, _ = x.shape
            x = torch.tanh(self.two(torch.tanh(self.one(x.reshape(n * points, 3)))))
            return self.out(x.view(n, points, 8).amax(1))

    text = str(altprop.examine(Points(), (torch.randn(4, 6, 3),)))
    assert "warning: no good cut: two+one holds one layer behind another (one.weight, one.bias" in text
    assert "No coarser cut is better: use a rule that follows the forward's edges, such as fa" in text


@pytest.mark.parametrize("name", ["mlp", "residual", "encoder"])
def test_examine_has_nothing_against_a_good_cut(name: str) -> None:
    make, shape = MODELS[name]
    report = altprop.examine(make(), (torch.zeros(shape),))
    assert report.ok
    assert "no good cut" not in str(report)


class Root(nn.Module):
    """A square root behind a layer and a softplus, as in pooling by power averages."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        root = nn.functional.softplus(self.two(torch.tanh(self.one(x)))).sqrt()
        scores: torch.Tensor = self.out(torch.tanh(root) + root.log())
        return scores


@pytest.mark.parametrize("rule", ["tp", "dtp", "lra_e"])
def test_a_root_is_no_activation(rule: str) -> None:
    torch.manual_seed(0)
    model, inputs = Root(), (torch.randn(4, 5),)
    assert [len(cut(model, inputs).region(name).phi) for name in ("one", "two")] == [1, 1]
    net = kept.compile(model, rule, example_inputs=inputs, loss="cross_entropy")
    net.backward(inputs, torch.arange(4) % 3)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
