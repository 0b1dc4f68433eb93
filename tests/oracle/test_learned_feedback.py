"""Feedback kinds against plain NumPy: how they learn, and what forward-shaped ones and convolutions do."""

import kept
import numpy as np
import pytest
import textbook
import torch
from by_hand import (
    BOUND,
    CHAIN,
    DIRECT,
    assert_equal,
    compile_mlp,
    found_updates,
    make_data,
    make_mlp,
    name_of,
    to_network,
    top_error,
)
from feedback_by_hand import Images, image_plan, low_rank, plain, spec_of, tensors
from torch import nn

import altprop
from altprop.runtime.draw import draw

pytestmark = pytest.mark.third


def test_forward_shaped_feedback_learns_by_the_same_switch() -> None:
    """Of `e_j^T z_i` in the shape of the weights becomes the weights' own update; of another factor, that product."""
    torch.manual_seed(0)
    model = Images().double()
    x, labels = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.tensor([0, 2, 1])
    rule = "reclra(beta=0.3, gamma=0.5)"
    link = altprop.Feedback("forward", learning=True)
    net = kept.compile(model, rule, plan=image_plan(rule, link), example_inputs=(x,))
    net.backward(x, labels)
    grad = net.feedback["two->one"].grad
    assert grad is not None
    assert model.two.weight.grad is not None
    assert float((grad - 0.5 * model.two.weight.grad).abs().max()) <= BOUND


def test_hebbian_forward_shaped_feedback() -> None:
    model = make_mlp("tanh", True)
    network = to_network(model, "tanh")
    x, target = make_data("cross_entropy")
    rule = "reclra(beta=0.2, gamma=0.4, kind='forward', feedback_learning='hebbian')"
    net = compile_mlp(model, rule, "cross_entropy", plan="chain")
    feedback = {i: net.feedback[f"{name_of(i + 1)}->{name_of(i)}"].detach().numpy().copy() for i in CHAIN}
    top, scale = top_error("cross_entropy", network.forward(x.numpy())[1][-1], target)
    how = textbook.Alignment(CHAIN, 0.2, 0.4, "hebbian")
    net.backward(x, target)
    assert_equal(found_updates(net, CHAIN), textbook.rec_lra(network, x.numpy(), top, feedback, scale, how))


@pytest.mark.parametrize("kind", ["dense", "channel", "low_rank"])
def test_balanced_feedback_does_not_hear_what_all_sources_share(kind: str) -> None:
    options = {"rank": 2} if kind == "low_rank" else {}
    net = compile_mlp(make_mlp("tanh", True), f"dfa(kind='{kind}', distribution='balanced', options={options})", "mse")
    matrix = low_rank if kind == "low_rank" else plain
    for layer in DIRECT:
        found = matrix(tensors(net), layer)
        assert np.abs(found.sum(0)).max() < 1e-6
        assert np.linalg.norm(found) > 0.5


def test_draws_depend_on_seed_and_name_alone() -> None:
    net = spec_of("sparse", 30, "{'nonzeros': 2, 'rank': 10}")
    for spec in net.graph.feedback.values():
        assert torch.equal(draw(0, spec), draw(0, spec))
        assert not torch.equal(draw(0, spec), draw(1, spec))


def test_compact_feedback_is_saved_and_loaded() -> None:
    for kind in ("binary", "sparse", "unified"):
        one = compile_mlp(make_mlp("tanh", True), f"dfa(kind='{kind}')", "cross_entropy", seed=1)
        other = compile_mlp(make_mlp("tanh", True), f"dfa(kind='{kind}')", "cross_entropy", seed=2)
        other.load_state_dict(one.state_dict())
        assert all(torch.equal(other.feedback[name], value) for name, value in one.feedback.items())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sparse", "{'nonzeros': 21}", r"connection 2->0: nonzeros=21: it must be a whole number, from 1 to 20"),
        ("sparse", "{'nonzeros': 2, 'rank': 3}", r"nonzeros=2 times rank=3 is less than the 20 units"),
        ("low_rank", "{}", r"rank=None: it must be a whole number, from 1 to 5"),
        ("unified", "{'form': '2021'}", r'form="2021": choose "2019" or "2020"'),
        ("binary", "{'tile': 0}", r"tile=0: it must be a whole number, 1 or more"),
        ("binary", "{'nonzeros': 1}", r'"binary" has no option "nonzeros"; it has at, scale, tile'),
    ],
)
def test_wrong_options_are_refused(kind: str, options: str, message: str) -> None:
    with pytest.raises(altprop.PlanError, match=message):
        spec_of(kind, 5, options)


def test_a_convolution_runs_between_images() -> None:
    links = tuple(altprop.Connection("out", name, altprop.Feedback("convolution")) for name in ("two", "one"))
    plan = altprop.WiringPlan(image_plan("dfa", altprop.Feedback("dense")).regions, links)
    with pytest.raises(altprop.PlanError, match="out->two: feedback by convolution runs between images of as many"):
        altprop.compile(Images(), "dfa", plan=plan, example_inputs=(torch.zeros(2, 2, 8, 8),))


def test_a_kernel_is_a_whole_number() -> None:
    link = altprop.Feedback("convolution", {"kernel": 0})
    with pytest.raises(altprop.PlanError, match="kernel=0: it must be a whole number, 1 or more"):
        altprop.compile(Images(), "dfa", plan=image_plan("dfa", link), example_inputs=(torch.zeros(2, 2, 8, 8),))


def test_what_cannot_learn_is_refused() -> None:
    with pytest.raises(altprop.PlanError, match=r'"unified" feedback cannot learn'):
        compile_mlp(make_mlp("tanh", True), "dkp(kind='unified')", "cross_entropy")


def test_connections_that_share_need_one_form() -> None:
    plan = compile_mlp(make_mlp("tanh", True), "dfa(kind='unified')", "cross_entropy").plan
    last = altprop.Connection(plan.connections[-1].source, plan.connections[-1].target,
                              altprop.Feedback("unified", {"form": "2020"}))  # fmt: skip
    wrong = altprop.WiringPlan(plan.regions, (*plan.connections[:-1], last))
    with pytest.raises(altprop.PlanError, match="share their feedback, so they need the same form"):
        compile_mlp(make_mlp("tanh", True), "dfa(kind='unified')", "cross_entropy", plan=wrong)


def test_a_product_needs_dense_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(altprop.PlanError, match="feedback by product needs dense layers between the two"):
        altprop.compile(model, "dfa(kind='product')", example_inputs=(torch.zeros(2, 1, 8, 8),))


def test_a_kind_that_does_not_fit_is_not_chosen() -> None:
    """A rule that asks for convolutions has them between images, and a matrix from the output."""
    net = kept.compile(
        Images(),
        "reclra(kind='convolution', options={'kernel': 4})",
        plan="chain",
        example_inputs=(torch.zeros(2, 2, 8, 8),),
    )
    assert {c.name: c.feedback.kind for c in net.plan.connections} == {"out->two": "dense", "two->one": "convolution"}
