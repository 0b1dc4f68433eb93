"""Contracts and states of drawn nets: a loop that knows the contract alone trains as the net does, and goes back."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from torch import nn

import altprop

pytestmark = pytest.mark.full
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.SiLU, nn.Sigmoid)
OPTIMIZERS = {
    "sgd": lambda: altprop.optim.SGD(lr=0.05),
    "momentum": lambda: altprop.optim.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: altprop.optim.Adam(lr=1e-2),
}
CLASSES = 3


@some.composite
def nets(draw: Any) -> tuple[nn.Module, str, str, bool]:
    """A small net, a rule, an optimizer, and whether errors are asked for."""
    sizes = draw(some.lists(some.integers(1, 7), min_size=1, max_size=4))
    layers: list[nn.Module] = []
    for inner, outer in zip([5, *sizes], [*sizes, CLASSES], strict=True):
        layers += [nn.Linear(inner, outer, bias=draw(some.booleans())), draw(some.sampled_from(ACTIVATIONS))()]
    with torch.random.fork_rng():
        torch.manual_seed(draw(some.integers(0, 99)))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    rule = draw(some.sampled_from(["dfa", "reclra", "fa", "dkp", "drtp", "dfa(kind='sparse')"]))
    return nn.Sequential(*layers[:-1]), rule, draw(some.sampled_from(sorted(OPTIMIZERS))), draw(some.booleans())


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(nets())
def test_a_contract_is_all_that_a_loop_needs(drawn: tuple[nn.Module, str, str, bool]) -> None:
    model, rule, optimizer, errors = drawn
    net = altprop.compile(model, rule, example_inputs=torch.randn(4, 5), optimizer=OPTIMIZERS[optimizer]())
    with tempfile.TemporaryDirectory() as folder:
        path = net.export(Path(folder) / "step.onnx", errors=errors)
        contract = json.loads(path.with_suffix(".json").read_text("utf-8"))
        with np.load(path.with_suffix(".npz")) as file:
            state = {name: file[name] for name in file.files}
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    heads = [one["name"] for part in ("inputs", "scalars", "states") for one in contract[part]]
    tails = [one["name"] for one in contract["outputs"]] + [one["next"] for one in contract["states"] if one["next"]]
    assert sorted(heads) == sorted(head.name for head in session.get_inputs())
    assert sorted(tails) == sorted(tail.name for tail in session.get_outputs())
    assert len(set(heads + tails)) == len(heads + tails)
    forms = {one["name"]: (one["shape"], one["dtype"]) for one in contract["states"]}
    assert {name: (list(value.shape), value.dtype.name) for name, value in state.items()} == forms
    scalars = {one["name"]: np.array(one["default"], one["dtype"]) for one in contract["scalars"]}
    generator = torch.Generator().manual_seed(0)
    for size in (3, 6, 1):
        x = torch.randn(size, 5, generator=generator)
        y = torch.randint(CLASSES, (size,), generator=generator)
        given_now = state | scalars | {contract["inputs"][0]["name"]: x.numpy(), "target": y.numpy()}
        made = dict(zip(tails, session.run(tails, given_now), strict=True))
        state |= {one["name"]: made[one["next"]] for one in contract["states"] if one["next"]}
        assert float(made["loss"]) == pytest.approx(float(net.step(x, y)), abs=1e-5, rel=1e-4)
    back = {one["state_dict"]: torch.from_numpy(state[one["name"]].copy()) for one in contract["states"]}
    for key, value in net.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(back[key], value, atol=1e-4, rtol=1e-3, check_dtype=False, msg=key)
    net.load_state_dict(net.state_dict() | back)
