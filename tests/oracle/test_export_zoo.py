"""Every kind of model exports: what the file does is compared with torch before it is kept, at two batch sizes."""

from pathlib import Path

import onnxruntime
import pytest
from choose import third
from onnx_nets import zoo_net
from onnx_tidy import assert_tidy
from zoo import ZOO
from zoo_cases import single

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


@pytest.mark.parametrize("name", third(name for name in ZOO if name not in LEFT_OUT))
def test_zoo(name: str, tmp_path: Path) -> None:
    case = ZOO[name]
    rule = RULES[sorted(ZOO).index(name) % len(RULES)]
    net = zoo_net(case, rule, altprop.optim.SGD(lr=0.1, momentum=0.9))
    path = net.export(tmp_path / "step.onnx", target=single(case.target(4)), initial="")
    assert_tidy(path)
    names = {head.name for head in onnxruntime.InferenceSession(str(path)).get_inputs()}
    missing = {n for n, p in net.model.named_parameters() if p.requires_grad} - names
    assert not missing
