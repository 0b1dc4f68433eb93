"""Feedback kinds against plain NumPy: what is stored, what it costs, what message it makes."""

import copy
from typing import Any

import kept
import numpy as np
import pytest
import textbook
import torch
from by_hand import (
    BIAS,
    BOUND,
    DIRECT,
    LOSSES,
    WIDTHS,
    assert_equal,
    by_bridge,
    by_program,
    compile_mlp,
    feedback_of,
    found_updates,
    make_data,
    make_mlp,
    name_of,
    to_network,
    top_error,
)
from choose import pairs
from feedback_by_hand import CLASSES, Images, binary, image_plan, low_rank, plain, sparse, spec_of, tensors, unified
from textbook import Array
from torch import nn

import altprop
from altprop.rules.feedback import DIRECT as KINDS_BY_NAME

pytestmark = pytest.mark.third


def unified_2020(stored: dict[str, Array], layer: int) -> Array:
    whole = stored[f"{name_of(3)}->*"]
    assert whole.min() >= -1.0
    assert whole.max() < 1.0
    return whole[:, : WIDTHS[layer + 1]] / np.sqrt(whole.shape[1])


KINDS: dict[str, Any] = {
    "kind='unified'": unified,
    "kind='unified', options={'form': '2020'}": unified_2020,
    "kind='sparse'": sparse,
    "kind='sparse', options={'nonzeros': 2}": sparse,
    "kind='sparse', options={'nonzeros': 1, 'rank': 3}": sparse,
    "kind='binary'": binary,
    "kind='binary', options={'tile': 24}": binary,
    "kind='low_rank', options={'rank': 2}": low_rank,
    "kind='product'": plain,
    "kind='channel', distribution='xavier_uniform'": plain,
}


@pairs(together=1, kind=KINDS, activation=("tanh", "relu"), bias=BIAS)
def test_kind(kind: str, activation: str, bias: bool) -> None:
    """One net meets all losses: in a loop of one's own DFA takes the gradient of any."""
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    net = compile_mlp(model, f"dfa({kind})", "mse")
    feedback = {layer: KINDS[kind](tensors(net), layer) for layer in DIRECT}
    for loss, run in [("mse", by_program), *((loss, by_bridge) for loss in LOSSES)]:
        x, target = make_data(loss)
        top, scale = top_error(loss, network.forward(x.numpy())[1][-1], target)
        run(net, loss)
        assert not [name for name, p in net.feedback.items() if p.grad is not None]
        expected = textbook.direct_feedback_alignment(network, x.numpy(), top, feedback, scale)
        found = {
            f"{'W' if name.endswith('weight') else 'b'}{int(name.partition('.')[0]) // 2}": p.grad.numpy()  # type: ignore[union-attr]
            for name, p in model.named_parameters()
        }
        assert_equal(found, expected)


def test_learned_sparse_and_low_rank() -> None:
    """dkp moves what is stored: the outer product at the places that are not zero, and that of each thin matrix."""
    x, target = make_data("cross_entropy")
    model = make_mlp("tanh", True)
    network = to_network(model, "tanh")
    top, scale = top_error("cross_entropy", network.forward(x.numpy())[1][-1], target)
    zs = network.forward(x.numpy())[1]
    sparse_net = compile_mlp(copy.deepcopy(model), "dkp(kind='sparse', options={'nonzeros': 2})", "cross_entropy")
    low_net = compile_mlp(copy.deepcopy(model), "dkp(kind='low_rank', options={'rank': 2})", "cross_entropy")
    sparse_net.backward(x, target)
    low_net.backward(x, target)
    for layer in DIRECT:
        name = f"{name_of(3)}->{name_of(layer)}"
        whole = scale * top.T @ zs[layer]
        indices = sparse_net.feedback[f"{name}:indices"].numpy()
        found = sparse_net.feedback[name].grad
        assert found is not None
        assert np.abs(found.numpy() - np.take_along_axis(whole, indices, 0)).max() <= BOUND
        left, right = low_net.feedback[f"{name}:left"], low_net.feedback[name]
        assert left.grad is not None
        assert right.grad is not None
        assert np.abs(left.grad.numpy() - whole @ right.detach().numpy().T).max() <= BOUND
        assert np.abs(right.grad.numpy() - left.detach().numpy().T @ whole).max() <= BOUND


@pairs(activation=("tanh", "relu"), bias=BIAS)
def test_position(activation: str, bias: bool) -> None:
    """One matrix at every position: to the textbook each position is a sample."""
    model = make_mlp(activation, bias)
    network = to_network(model, activation)
    generator = torch.Generator().manual_seed(5)
    x, target = (torch.randn(3, 4, size, generator=generator, dtype=torch.float64) for size in (WIDTHS[0], CLASSES))
    net = kept.compile(model, "dkp(kind='position', weight_decay=0.2)", example_inputs=(x,), loss="mse", loss_scale=1.0)
    assert {c.feedback.kind for c in net.plan.connections} == {"position"}
    rows = x.flatten(0, 1).numpy()
    for reduction, scale in (("mean", 1 / len(rows)), ("sum", 1.0)):
        net.zero_grad()
        nn.functional.mse_loss(net(x), target, reduction=reduction).backward()
        output = network.forward(rows)[1][-1]
        top = textbook.square_error(output, target.flatten(0, 1).numpy(), reduction == "mean")
        expected = textbook.direct_kolen_pollack(network, rows, top, feedback_of(net, DIRECT), scale, 0.2)
        assert_equal(found_updates(net, DIRECT), expected)


@pytest.mark.parametrize(
    ("error", "activity"), [((4, 5, 7), (4, 5, 6)), ((4, 7, 3, 2), (4, 6, 3, 2)), ((4, 5, 7), (20, 6))]
)
def test_position_of_a_rank_is_its_product(error: tuple[int, ...], activity: tuple[int, ...]) -> None:
    kind, drawn = KINDS_BY_NAME["position"], torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in ((7, 2), (2, 6)))
    e, z = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in (error, activity))
    thin, whole = {"left": left, "": right}, {"": left @ right}
    assert torch.allclose(kind.project(e, thin, z, {}), kind.project(e, whole, z, {}), atol=BOUND)
    outer, made = kind.outer(e, z, whole, {})[""], kind.outer(e, z, thin, {})
    assert torch.allclose(made["left"], outer @ right.t(), atol=BOUND)
    assert torch.allclose(made[""], left.t() @ outer, atol=BOUND)


def test_position_of_a_rank_in_a_net() -> None:
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 9))
    net = kept.compile(
        model, "dkp(kind='position', options={'rank': 3})", example_inputs=(torch.zeros(2, 4, dtype=torch.int64),)
    )
    assert {name: tuple(p.shape) for name, p in net.feedback.items()} == {
        "3->1:left": (9, 3), "3->1": (3, 8), "3->0:left": (9, 3), "3->0": (3, 6)
    }  # fmt: skip
    net.backward(torch.zeros(5, 4, dtype=torch.int64), torch.ones(5, 4, dtype=torch.int64))
    assert all(float(p.grad.abs().max()) > 0 for p in (*net.model.parameters(), *net.feedback.values()))


def test_a_bit_for_each_number() -> None:
    binary_bytes = sum(p.numel() * p.element_size() for p in spec_of("binary", 800).feedback.values())
    dense_bytes = sum(p.numel() * p.element_size() for p in spec_of("dense", 800).feedback.values())
    assert dense_bytes == 4 * 20 * 800
    assert 1 - binary_bytes / dense_bytes == pytest.approx(0.969, abs=3e-4)


def test_sparse_feedback_is_never_dense() -> None:
    """s indices and s values a unit, and no tensor of (classes, units) in the program."""
    net = spec_of("sparse", 50, "{'nonzeros': 3}")
    assert {name: tuple(p.shape) for name, p in net.feedback.items()} == {"2->0:indices": (3, 50), "2->0": (3, 50)}
    wide = {}
    for kind, made in (("sparse", net), ("dense", spec_of("dense", 50))):
        values = [node.meta.get("val") for node in made.graph.programs["backward"].graph.graph.nodes]
        wide[kind] = sum(isinstance(v, torch.Tensor) and tuple(v.shape) == (20, 50) for v in values)
    assert wide["sparse"] == wide["dense"] - 1, "the dense matrix itself is the only one too many"


def test_places_of_sparse_feedback() -> None:
    """Each unit hears different sources; with a rank all sources are heard alike, and the rank is that."""
    chosen = spec_of("sparse", 400, "{'nonzeros': 3}").feedback["2->0:indices"]
    assert all(len(set(column)) == 3 for column in chosen.t().tolist())
    ranked = spec_of("sparse", 400, "{'nonzeros': 5, 'rank': 4}").feedback
    indices, values = ranked["2->0:indices"], ranked["2->0"].detach()
    assert torch.bincount(torch.unique(indices.sort(0).values, dim=1).flatten(), minlength=20).tolist() == [1] * 20
    matrix = torch.zeros(20, 400, dtype=torch.float64).scatter_(0, indices, values.double())
    assert torch.linalg.matrix_rank(matrix, rtol=1e-5) == 4
    h = np.sqrt(np.sqrt(20 * 5) / 400)
    assert float(values.pow(2).mean().sqrt()) == pytest.approx(h, rel=1e-4)


def test_unified_feedback_is_one_storage() -> None:
    net = compile_mlp(make_mlp("tanh", True), "dfa(kind='unified')", "cross_entropy")
    ((name, parameter),) = net.feedback.items()
    assert name == f"{name_of(3)}->*"
    assert tuple(parameter.shape) == (CLASSES, max(WIDTHS[1:-1]))
    x, target = make_data("cross_entropy")
    with torch.no_grad():
        parameter[:, : WIDTHS[3]] = 0.0
    net.backward(x, target)
    narrow, wide = (net.model.get_parameter(f"{name_of(i)}.weight").grad for i in (1, 0))
    assert narrow is not None
    assert wide is not None
    assert not narrow.any(), "the narrowest layer sees the first columns alone"
    assert wide.any()


def test_a_product_starts_as_the_way_to_the_output() -> None:
    model = make_mlp("tanh", True)
    weights = to_network(model, "tanh").weights
    net = compile_mlp(model, "dkp(kind='product')", "cross_entropy")
    stored = tensors(net)
    assert np.abs(stored[f"{name_of(3)}->{name_of(0)}"] - weights[3] @ weights[2] @ weights[1]).max() <= BOUND
    assert np.abs(stored[f"{name_of(3)}->{name_of(2)}"] - weights[3]).max() <= BOUND


@pytest.mark.parametrize("kernel", [3, 4])
def test_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    model = Images().double()
    x, labels = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.tensor([0, 2, 1])
    rule = "reclra(beta=0.3, gamma=0.5)"
    link = altprop.Feedback("convolution", {"kernel": kernel}, learning=True)
    net = kept.compile(model, rule, plan=image_plan(rule, link), example_inputs=(x,))
    filters = net.feedback["two->one"]
    assert tuple(filters.shape) == (4, 3, kernel, kernel)
    with torch.no_grad():
        h1 = model.one(x)
        z1 = torch.tanh(h1)
        h2 = model.two(z1)
        z2 = torch.tanh(h2)
        top = (torch.softmax(model.out(z2.flatten(1)), 1) - nn.functional.one_hot(labels, 3)).numpy()
    d2 = (top @ net.feedback["out->two"].detach().numpy().reshape(3, -1)).reshape(z2.shape)
    e2 = z2.numpy() - np.tanh(h2.numpy() - 0.3 * d2)
    e_filters = filters.detach().numpy()
    d1 = textbook.transposed_convolution(e2, e_filters, 2, 8)
    e1 = z1.numpy() - np.tanh(h1.numpy() - 0.3 * d1)
    net.backward(x, labels)
    wanted = textbook.correlate(x.numpy(), e1, (3, 2, 3, 3), 1, 1) / 3
    assert model.one.weight.grad is not None
    assert np.abs(model.one.weight.grad.numpy() - wanted).max() <= BOUND
    assert filters.grad is not None
    # The message is linear in E: its derivative along one filter number is the message of that number alone.
    for place in [(0, 0, 0, 0), (3, 2, kernel - 1, 1), (1, 1, 1, 2)]:
        alone = np.zeros_like(e_filters)
        alone[place] = 1.0
        number = 0.5 / 3 * (textbook.transposed_convolution(e2, alone, 2, 8) * z1.numpy()).sum()
        assert abs(float(filters.grad[place]) - number) <= BOUND
