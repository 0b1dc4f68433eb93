"""Muon inside the program beside torch's; rates of output layers; what an optimizer tells apart."""

import copy
from typing import Any

import kept
import pytest
import torch
from torch import nn

import altprop
from altprop.ir.members import Members
from altprop.rules.registry import recipe_of

pytestmark = pytest.mark.third

STEPS = 4


class Network(nn.Module):
    """An embedding, a tall and a wide matrix, a filter bank, norms, biases, an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.tall = nn.Linear(6, 10)
        self.norm = nn.LayerNorm(10)
        self.wide = nn.Linear(10, 6)
        self.filters = nn.Conv1d(4, 3, 3, padding=1, bias=False)
        self.out = nn.Linear(18, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, 4) to (N, 5)."""
        z = torch.tanh(self.norm(self.tall(self.table(tokens))))
        z = torch.tanh(self.filters(torch.tanh(self.wide(z))))
        return self.out(z.flatten(1))


MATRICES = {"tall.weight", "wide.weight", "filters.weight"}


def make(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return Network().to(dtype)


def compiled(rule: str, optimizer: Any = None) -> altprop.LocalNet:
    return kept.compile(make(), rule, example_inputs=(batch(0)[0],), optimizer=optimizer)


def batch(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(9, (6, 4), generator=generator), torch.randint(5, (6,), generator=generator)


class Torch:
    """torch.optim.Muon on matrices, filters flattened; torch.optim.AdamW on the rest."""

    def __init__(self, net: altprop.LocalNet, lr: float, rest_rate: float, **muon: Any) -> None:
        named = dict(net.model.named_parameters())
        matrices = [named[name] for name in MATRICES] + [
            net.feedback[name] for name, spec in net.graph.feedback.items() if spec.stands_for in MATRICES
        ]
        ids = {id(p) for p in matrices}
        self.matrices = matrices
        self.flat = [nn.Parameter(p.detach().flatten(1)) for p in matrices]
        others = [p for p in net.parameters() if id(p) not in ids]
        self.muon = torch.optim.Muon(self.flat, lr=lr, weight_decay=0.1, **muon)
        self.rest = torch.optim.AdamW(others, lr=lr * rest_rate, weight_decay=0.01, foreach=False)

    def step(self) -> None:
        for flat, p in zip(self.flat, self.matrices, strict=True):
            assert p.grad is not None
            flat.grad = p.grad.flatten(1)
        self.muon.step()
        self.rest.step()
        with torch.no_grad():
            for flat, p in zip(self.flat, self.matrices, strict=True):
                p.copy_(flat.view_as(p))
                p.grad = None
        self.rest.zero_grad()


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("kp", {}),
        ("kp", {"nesterov": False, "momentum": 0.8, "ns_steps": 3}),
        ("dfa", {"adjust_lr_fn": "match_rms_adamw"}),
    ],
)
def test_muon_is_torch_on_hidden_matrices_and_adamw_on_the_rest(rule: str, options: dict[str, Any]) -> None:
    inside = altprop.optim.Muon(lr=0.02, rest_rate=0.1, fused=False, **options)
    ours = compiled(rule, inside)
    other = compiled(rule)
    theirs = Torch(other, 0.02, 0.1, **options)
    for index in range(STEPS):
        loss = ours.step(*batch(index))
        torch.testing.assert_close(loss, other.backward(*batch(index)))
        theirs.step()
    for one, two in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    start = dict(make().named_parameters())
    assert all(not torch.equal(p, start[name]) for name, p in ours.model.named_parameters())


def test_members_of_a_net() -> None:
    """Hidden matrices and filters, and feedback in their shape; not embeddings, biases, norms or the output layer."""
    graph = compiled("kp").graph
    members = Members.of(graph)
    assert {n for n in members.matrices if "->" not in n} == MATRICES
    assert {n for n in members.matrices if "->" in n} == {
        n for n, spec in graph.feedback.items() if spec.stands_for in MATRICES
    }
    assert members.outputs == {"out.weight", "out.bias"}


def test_state_is_kept_saved_and_restored() -> None:
    net = compiled("kp", altprop.optim.Muon(lr=0.02))
    net.step(*batch(0))
    names = [name for name in net.state_dict() if name.startswith("state.")]
    assert "state.momentum_buffer:tall/weight" in names
    assert "state.exp_avg:tall/weight" not in names
    assert "state.exp_avg:out/weight" in names
    again = copy.deepcopy(net)
    fresh = compiled("kp", altprop.optim.Muon(lr=0.02))
    fresh.load_state_dict(net.state_dict())
    for one in (net, again, fresh):
        one.step(*batch(1))
    for a, b, c in zip(net.parameters(), again.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_feedback_that_stays_the_weights_stays_so_under_muon() -> None:
    net = compiled("kp(start='weights')", altprop.optim.Muon(lr=0.02))
    for index in range(2):
        net.step(*batch(index))
    for name, spec in net.graph.feedback.items():
        if spec.start.stays and name in Members.of(net.graph).matrices:
            assert torch.equal(net.feedback[name], net.model.get_parameter(spec.stands_for))


@pytest.mark.parametrize("kind", [altprop.optim.SGD, altprop.optim.AdamW])
def test_output_layers_may_learn_at_a_rate_of_their_own(kind: Any) -> None:
    """As groups give it to torch; feedback that stands for their weights keeps feedback's rate."""
    optimizer = kind(lr=0.01, output_rate=10.0, feedback_lr=0.02, weight_decay=0.1, fused=False)
    ours = compiled("kp", optimizer)
    other = compiled("kp")
    groups = other.param_groups(lr=0.01, output_rate=10.0, feedback_lr=0.02, feedback_weight_decay=0.1)
    assert [group["lr"] for group in groups] == [0.01, 0.1, 0.02]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in other.model.out.parameters()]
    theirs = getattr(torch.optim, kind.__name__)(groups, weight_decay=0.1, foreach=False)
    for index in range(STEPS):
        ours.step(*batch(index))
        theirs.zero_grad()
        other.backward(*batch(index))
        theirs.step()
    for one, two in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adjust_lr_fn": "wide"}, "adjust_lr_fn is 'wide'; choose original or match_rms_adamw"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"momentum": 1.0}, r"momentum is 1\.0"),
        ({"ns_steps": 0}, "ns_steps 0"),
        ({"output_rate": -1.0}, r"output_rate is -1\.0; it must be 0 or more"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(altprop.CompileError, match=message):
        altprop.optim.Muon(**options)


def test_rules_that_take_turns_are_refused_under_muon() -> None:
    with pytest.raises(altprop.CompileError, match="no form for rules that take turns"):
        compiled("hdfa", altprop.optim.Muon(lr=0.02)).step(*batch(0))


def test_schedules_and_files_hold_it(tmp_path: Any) -> None:
    """One program a device moves the same; a step's file has the iteration in float32."""
    optimizer = altprop.optim.Muon(lr=0.02, output_rate=3.0, precision="float32")
    net = compiled("kp", optimizer)
    other = copy.deepcopy(net)
    runtime = net.schedule(devices=2, batch=6).runtime("serial")
    for index in range(2):
        runtime.step(*batch(index))
        other.step(*batch(index))
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    assert other.export(tmp_path / "step.onnx").exists()


def test_defect_37_groups_have_the_rates_of_the_recipe() -> None:
    """Without a rate; with one, groups are what is asked for."""
    net = compiled("kp")
    assert net.recipe == altprop.rules.get("kp").about.recipe
    assert [group["lr"] for group in net.param_groups()] == [2e-3, 2e-3]
    net.recipe = altprop.rules.Recipe(lr=0.01, output_rate=10.0, feedback_lr=0.03, weight_decay=0.1)
    groups = net.param_groups()
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.1), (0.1, 0.1), (0.03, 0.1)]
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    assert [(group["lr"], group.get("weight_decay")) for group in net.param_groups(lr=0.5)] == [(0.5, None), (0.5, 0.0)]
    assert torch.optim.Adam(net.param_groups()).param_groups[1]["lr"] == 0.1


def test_defect_37_torch_muon_takes_groups() -> None:
    """Hidden matrices of two dimensions; all that is left is for another optimizer."""
    net = compiled("kp")
    hidden, rest = net.param_groups(lr=0.02, matrices=True), net.param_groups(lr=1e-3, matrices=False)
    ids = [{id(p) for group in groups for p in group["params"]} for groups in (hidden, rest)]
    everything = {id(p) for p in net.parameters()}
    assert ids[0].isdisjoint(ids[1])
    assert ids[0] | ids[1] == everything
    before = net.model.wide.weight.detach().clone()
    optimizers = torch.optim.Muon(hidden), torch.optim.AdamW(rest)
    net.backward(*batch(0))
    for optimizer in optimizers:
        optimizer.step()
    assert not torch.equal(before, net.model.wide.weight)


def test_recipes_of_several_rules() -> None:
    rules = altprop.rules
    recipe = {name: rules.get(name).about.recipe for name in ("dfa", "drtp")}
    plan = compiled("drtp").plan
    assert recipe_of({"*": rules.get("dfa")}) == recipe["dfa"]
    assert recipe_of({"a": rules.get("dfa"), "*": rules.get("drtp")}) == rules.Recipe()
    assert recipe_of({"a": None, "*": rules.get("drtp")}) == recipe["drtp"]
    assert recipe_of({"*": rules.get("dfa")}, plan) == recipe["drtp"]  # the plan says the rules


def test_what_a_step_holds_is_counted() -> None:
    """The memory of a net whose rules take no turns asks Muon for nothing that it has not."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    net = kept.compile(model, "dfa", example_inputs=(x,), optimizer=altprop.optim.Muon(lr=0.1))
    assert net.memory(x, torch.tensor([0, 1, 0, 1])).live > 0
