"""Real architectures at tiny widths, with random weights: torchvision, transformers, graph networks and others.

Those of `zoo.LARGE` are among them. `make coverage` runs every rule on all of them.
"""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo_cases import CLASSES, LENGTH, VOCABULARY, Case, floats, images, integers, labels, rows, words
from zoo_large import hugging, logits, torchvision_model

TOKENS = labels(LENGTH, classes=VOCABULARY)


def tiny(name: str, size: int = 32, **options: Any) -> Case:
    """A torchvision model on square images of three channels."""
    return Case(name, torchvision_model(name, num_classes=CLASSES, **options), images(3, size), labels())


def efficientnet() -> nn.Module:
    """EfficientNet with three stages; blocks are dropped at random."""
    module = pytest.importorskip("torchvision").models.efficientnet
    stages = [module.MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), module.MBConvConfig(4, 3, 2, 8, 12, 2, 1, 1)]
    made: nn.Module = module.EfficientNet(stages, dropout=0.2, num_classes=CLASSES, last_channel=16)
    return made


def densenet() -> nn.Module:
    """DenseNet with two blocks of two layers."""
    made: nn.Module = pytest.importorskip("torchvision").models.DenseNet(4, (2, 2), 8, num_classes=CLASSES)
    return made


def regnet() -> nn.Module:
    """RegNet with two stages and squeeze-and-excitation."""
    module = pytest.importorskip("torchvision").models.regnet
    setting = module.BlockParams([1, 2], [8, 16], [4, 8], [1.0, 1.0], [2, 2], 0.25)
    made: nn.Module = module.RegNet(setting, num_classes=CLASSES, stem_width=8)
    return made


def resnext() -> nn.Module:
    """ResNeXt with one bottleneck a stage."""
    module = pytest.importorskip("torchvision").models.resnet
    made: nn.Module = module.ResNet(module.Bottleneck, [1, 1, 1, 1], CLASSES, groups=4, width_per_group=4)
    return made


def vgg() -> nn.Module:
    """VGG with batch norm: four convolutions and a small classifier."""
    module = pytest.importorskip("torchvision").models.vgg
    made: nn.Module = module.VGG(module.make_layers([4, "M", 8, 8, "M"], batch_norm=True), num_classes=CLASSES)
    made.avgpool = nn.AdaptiveAvgPool2d(2)
    made.classifier = nn.Sequential(nn.Linear(32, 12), nn.ReLU(True), nn.Dropout(), nn.Linear(12, CLASSES))
    return made


def swin() -> nn.Module:
    """Swin: windows, shifted windows, tables of relative positions, merged patches."""
    made: nn.Module = pytest.importorskip("torchvision").models.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 2], [2, 2], stochastic_depth_prob=0.1, num_classes=CLASSES
    )
    return made


def mobilenet_v3() -> nn.Module:
    """MobileNetV3 with two blocks, squeeze-and-excitation and hard swish."""
    module = pytest.importorskip("torchvision").models.mobilenetv3
    rest = [module.InvertedResidualConfig(8, 3, 16, 8, True, "RE", 2, 1, 1.0)]
    rest += [module.InvertedResidualConfig(8, 5, 24, 12, True, "HS", 1, 1, 1.0)]
    made: nn.Module = module.MobileNetV3(rest, 24, num_classes=CLASSES)
    return made


def shufflenet() -> nn.Module:
    """ShuffleNetV2 with two units a stage."""
    made: nn.Module = pytest.importorskip("torchvision").models.ShuffleNetV2(
        [2, 2, 2], [8, 8, 16, 24, 32], num_classes=CLASSES
    )
    return made


class Segmenter(nn.Module):
    """torchvision's FCN head on a small backbone, brought back to the size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.head = pytest.importorskip("torchvision").models.segmentation.fcn.FCNHead(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.head(F.relu(self.backbone(x)))
        return F.interpolate(found, size=x.shape[-2:], mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Down, across, up by a transposed convolution, and a long skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.across = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.merge = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, CLASSES, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down(x)
        return self.merge(torch.cat([fine, self.up(self.across(F.max_pool2d(fine, 2)))], 1))


class Mixer(nn.Module):
    """MLP-Mixer: two layers that mix positions, then channels."""

    class Layer(nn.Module):
        """One layer."""

        def __init__(self, positions: int, width: int) -> None:
            super().__init__()
            self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
            self.positions = nn.Sequential(nn.Linear(positions, 6), nn.GELU(), nn.Linear(6, positions))
            self.channels = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.positions(self.one(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.two(x))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, stride=4)
        self.layers = nn.Sequential(Mixer.Layer(4, 8), Mixer.Layer(4, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class RadianceField(nn.Module):
    """A NeRF-style network on rays: encoded points, a skip, density and colour, and the sum along the ray."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(15, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(23, 8), nn.ReLU())
        self.density = nn.Linear(8, 1)
        self.colour = nn.Sequential(nn.Linear(11, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, origin: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        depth = torch.linspace(0.5, 2.0, 6, dtype=origin.dtype)
        points = origin[:, None] + depth[:, None] * direction[:, None]
        coded = torch.cat([points, *(f(points * k) for k in (1, 2) for f in (torch.sin, torch.cos))], -1)
        x = self.second(torch.cat([self.first(coded), coded], -1))
        opaque = 1 - torch.exp(-F.softplus(self.density(x)).squeeze(-1) * 0.3)
        clear = torch.cumprod(torch.cat([torch.ones_like(opaque[:, :1]), 1 - opaque[:, :-1]], 1), 1)
        seen = torch.cat([x, direction[:, None].expand(-1, len(depth), -1)], -1)
        return ((opaque * clear)[..., None] * torch.sigmoid(self.colour(seen))).sum(1)


class GraphAttention(nn.Module):
    """Two layers of graph attention with two heads: scores of edges, a softmax at each node, a sum."""

    class Layer(nn.Module):
        """One layer."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(inputs, 2 * outputs, bias=False)
            self.source = nn.Parameter(torch.randn(2, outputs))
            self.target = nn.Parameter(torch.randn(2, outputs))

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            h = self.linear(x).unflatten(-1, self.source.shape)
            score = (h * self.source).sum(-1)[edges[0]] + (h * self.target).sum(-1)[edges[1]]
            weight = F.leaky_relu(score, 0.2).exp()
            total = torch.zeros_like(h[..., 0]).index_add(0, edges[1], weight)
            share = weight / total[edges[1]]
            return torch.zeros_like(h).index_add(0, edges[1], share[..., None] * h[edges[0]]).flatten(1)

    def __init__(self) -> None:
        super().__init__()
        self.first = GraphAttention.Layer(4, 5)
        self.second = GraphAttention.Layer(10, CLASSES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.second(F.elu(self.first(x, edges)), edges).unflatten(-1, (2, CLASSES)).mean(1)


def graph(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes, edges between them, and one from every node to itself."""
    edges = torch.stack([integers(2, 9, seed=1), integers(2, 9, seed=2)])
    own = torch.arange(2).repeat(2, 1)
    return floats(batch, 4), torch.cat([edges, own], 1)


class Translator(nn.Module):
    """`nn.Transformer`: encoder and decoder, a causal mask, cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.body = nn.Transformer(8, 2, 1, 1, 12, 0.0, batch_first=True)
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=self.head.weight.dtype)
        return self.head(self.body(self.embed(source), self.embed(target), tgt_mask=mask))


llama = hugging(
    "LlamaForCausalLM",
    "LlamaConfig",
    vocab_size=VOCABULARY,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=8,
    use_cache=False,
    bos_token_id=0,
    eos_token_id=0,
)
t5 = hugging(
    "T5ForConditionalGeneration",
    "T5Config",
    vocab_size=VOCABULARY,
    d_model=8,
    d_kv=4,
    d_ff=12,
    num_layers=1,
    num_heads=2,
    dropout_rate=0.0,
    use_cache=False,
    decoder_start_token_id=0,
)
transformers_resnet = hugging(
    "ResNetForImageClassification",
    "ResNetConfig",
    embedding_size=4,
    hidden_sizes=[4, 8],
    depths=[1, 1],
    layer_type="basic",
    num_labels=CLASSES,
)
wav2vec2 = hugging(
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2Config",
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    conv_dim=(4, 4),
    conv_stride=(4, 2),
    conv_kernel=(8, 3),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    classifier_proj_size=6,
    num_labels=CLASSES,
    mask_time_prob=0.0,
    mask_feature_prob=0.0,
    apply_spec_augment=False,
    layerdrop=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    feat_proj_dropout=0.0,
)


def two_texts(batch: int) -> dict[str, torch.Tensor]:
    """Keyword inputs of an encoder and a decoder."""
    tokens = integers(VOCABULARY, batch, LENGTH), integers(VOCABULARY, batch, LENGTH, seed=1)
    return {"input_ids": tokens[0], "decoder_input_ids": tokens[1]}


TORCHVISION = (
    Case("resnext", resnext, images(3, 32), labels()),
    Case("vgg", vgg, images(3, 16), labels()),
    tiny("alexnet", 64),
    Case("mobilenet_v3", mobilenet_v3, images(3, 16), labels()),
    Case("densenet", densenet, images(3, 32), labels()),
    Case("efficientnet", efficientnet, images(3, 16), labels()),
    Case("regnet", regnet, images(3, 16), labels()),
    Case("shufflenet", shufflenet, images(3, 32), labels()),
    tiny("squeezenet1_1"),
    tiny("googlenet", 64, aux_logits=False, init_weights=False),
    Case("swin", swin, images(3, 16), labels()),
    Case("segmentation", Segmenter, images(3, 16), labels(16, 16)),
)
TRANSFORMERS = (
    Case("llama", llama, lambda n: {"input_ids": integers(VOCABULARY, n, LENGTH)}, TOKENS, logits=logits),
    Case("t5", t5, two_texts, TOKENS, logits=logits),
    Case("transformers_resnet", transformers_resnet, images(3, 16), labels(), logits=logits),
    Case("wav2vec2", wav2vec2, rows(64), labels(), logits=logits),
)
OTHERS = (
    Case("unet", UNet, images(2, 6), labels(6, 6)),
    Case("mixer", Mixer, images(2, 8), labels()),
    Case("nerf", RadianceField, lambda n: (floats(n, 3), floats(n, 3, seed=1)), lambda n: floats(n, 3, seed=7), "mse"),
    Case("gat", GraphAttention, graph, labels()),
    Case(
        "translator",
        Translator,
        lambda n: (words()(n)[0], integers(VOCABULARY, n, LENGTH + 1, seed=1)),
        labels(LENGTH + 1, classes=VOCABULARY),
    ),
)
ARCHITECTURES = {case.name: case for case in (*TORCHVISION, *TRANSFORMERS, *OTHERS)}
