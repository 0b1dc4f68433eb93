"""Every kind of model exports: what the file does is compared with torch before it is kept, at two batch sizes."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo import ZOO, Case

import altprop

# The others of each family cover the same operators; a batch of theirs costs seconds.
LEFT_OUT = {
    "lstm_two_layers",
    "lstm",
    "resnet18",
    "bert_eager",
    "gpt2_sdpa",
    "gpt2_eager",
    "bert_sdpa",
    "vit_eager",
    "torchvision_vit",
    "encoder_layer_norm_first",
}
RULES = ("reclra", "bp", "fa")


def single(tree: Any) -> Any:
    """The same in float32."""
    floats = lambda x: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x  # noqa: E731
    return pytree.tree_map(floats, tree)


def compiled(case: Case, rule: str, optimizer: Any, **options: Any) -> Any:
    inputs = single(case.inputs(4))
    given = {"example_kwargs": inputs} if isinstance(inputs, dict) else {"example_inputs": inputs}
    loss = case.loss.float() if isinstance(case.loss, nn.Module) else case.loss
    return altprop.compile(case.model().float(), rule, loss=loss, optimizer=optimizer, **given, **options)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in LEFT_OUT])
def test_zoo(name: str, tmp_path: Path) -> None:
    case = ZOO[name]
    rule = RULES[sorted(ZOO).index(name) % len(RULES)]
    net = compiled(case, rule, altprop.optim.SGD(lr=0.1, momentum=0.9))
    path = net.export(tmp_path / "step.onnx", target=single(case.target(4)), initial="")
    names = {head.name for head in onnxruntime.InferenceSession(str(path)).get_inputs()}
    missing = {n for n, p in net.model.named_parameters() if p.requires_grad} - names
    assert not missing
