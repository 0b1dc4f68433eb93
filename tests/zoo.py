"""The zoo: small models of every kind that the compiler must handle, with inputs, targets and a loss.

A *case* is a model and all that a test needs to train it for one step in float64. `REFERENCE_LOSSES` are the
named losses in plain torch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import processor_time
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

BATCH = 4
CLASSES = 3
VOCABULARY = 11
LENGTH = 5


def floats(batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)


def integers(high: int, batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Integers below `high`."""
    generator = torch.Generator().manual_seed(2000 + seed)
    return torch.randint(high, (batch, *shape), generator=generator)


def sequence_cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (N, C), of (B, T, C) or of (N, C, H, W)."""
    if output.dim() == 3:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())
    return F.cross_entropy(output, target)


REFERENCE_LOSSES: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "cross_entropy": sequence_cross_entropy,
    "mse": F.mse_loss,
    "smooth_l1": F.smooth_l1_loss,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}


def single(tree: Any) -> Any:
    """The same in float32."""
    return pytree.tree_map(lambda x: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, tree)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        build: makes the model.
        inputs: from batch size to the positional inputs, or to the keyword inputs.
        target: from batch size to the target.
        loss: name of a loss, or callable.
        logits: takes the tensor that the loss reads out of what the model returns.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...] | dict[str, Any]]
    target: Callable[[int], Any]
    loss: str | Callable[[Any, Any], torch.Tensor] = "cross_entropy"
    logits: Callable[[Any], Any] = lambda output: output

    def model(self, seed: int = 0) -> nn.Module:
        """The model in float64 and training mode; the global random state is put back."""
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        try:
            return self.build().double().train()
        finally:
            torch.set_rng_state(state)

    def call(self, net: nn.Module, inputs: tuple[Any, ...] | dict[str, Any]) -> Any:
        """Calls a model or a net."""
        return net(**inputs) if isinstance(inputs, dict) else net(*inputs)

    def loss_of(self, output: Any, target: Any) -> torch.Tensor:
        """The loss in plain torch."""
        if callable(self.loss):
            return self.loss(output, target)
        return REFERENCE_LOSSES[self.loss](self.logits(output), target)


def images(channels: int, size: int) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: square images."""
    return lambda batch: (floats(batch, channels, size, size),)


def rows(*shape: int) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: one tensor of floats."""
    return lambda batch: (floats(batch, *shape),)


def words(length: int = LENGTH) -> Callable[[int], tuple[torch.Tensor]]:
    """Inputs: one tensor of tokens."""
    return lambda batch: (integers(VOCABULARY, batch, length),)


def labels(*shape: int, classes: int = CLASSES) -> Callable[[int], torch.Tensor]:
    """Targets: classes."""
    return lambda batch: integers(classes, batch, *shape, seed=7)


def values(*shape: int) -> Callable[[int], torch.Tensor]:
    """Targets: numbers."""
    return lambda batch: floats(batch, *shape, seed=7)


def mlp(activation: Callable[[], nn.Module], bias: bool = True, outputs: int = CLASSES) -> nn.Sequential:
    """Three layers, none square."""
    return nn.Sequential(
        nn.Linear(7, 9, bias=bias),
        activation(),
        nn.Linear(9, 5, bias=bias),
        activation(),
        nn.Linear(5, outputs, bias=bias),
    )


class ConvNet(nn.Module):
    """Two convolutions with batch norm, pooling and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.bn2 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4 * 3 * 3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        return self.fc(self.drop(torch.flatten(x, 1)))


class Residual(nn.Module):
    """A fully connected network with two skip connections, one of them over two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)
        self.c = nn.Linear(6, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.b(torch.tanh(self.a(x)))) + x
        x = torch.tanh(self.c(x) + x)
        return self.out(x)


class Branches(nn.Module):
    """Two branches of other widths and depths, joined by concatenation; one gates the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.left = nn.Linear(6, 4)
        self.right1 = nn.Linear(6, 8)
        self.right2 = nn.Linear(8, 5)
        self.gate = nn.Linear(6, 5)
        self.out = nn.Linear(9, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.stem(x))
        left = torch.tanh(self.left(x))
        right = F.relu(self.right2(torch.sigmoid(self.right1(x))))
        right = right * torch.sigmoid(self.gate(x))
        return self.out(torch.cat([left, right], 1))


class SharedTwice(nn.Module):
    """One layer called twice in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 6)
        self.shared = nn.Linear(6, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.shared(x))
        x = torch.tanh(self.shared(x))
        return self.out(x)


class TiedEmbedding(nn.Module):
    """A language model whose output weights are its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(self.embed(tokens))))


class Recurrent(nn.Module):
    """An embedding, a recurrent layer, and a classifier on the last state."""

    def __init__(self, kind: Callable[..., nn.Module], layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 6)
        self.cell = kind(6, 7, num_layers=layers, batch_first=True)
        self.out = nn.Linear(7, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(self.embed(tokens))
        return self.out(states[:, -1])


class Encoder(nn.Module):
    """torch's own transformer layer between an embedding and a mean."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True, norm_first=norm_first)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(self.embed(x)).mean(1))


class Attention(nn.Module):
    """`nn.MultiheadAttention` with a residual, once with its weights returned and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.one = nn.MultiheadAttention(8, 2, batch_first=True)
        self.two = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(x))
        x = x + self.one(x, x, x, need_weights=False)[0]
        x = x + self.two(x, x, x, need_weights=True)[0]
        return self.out(x[:, 0])


class BareParameters(nn.Module):
    """A class token, a table of positions, a scale and a bare matrix: parameters that no module owns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(1, LENGTH + 1, 6))
        self.scale = nn.Parameter(torch.rand(6) + 0.5)
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
        x = torch.tanh(x * self.scale)
        return self.out(torch.tanh(x @ self.matrix).mean(1))


class Reparametrised(nn.Module):
    """A weight norm, a normalised matrix, and a frozen gate that `torch.no_grad` holds back."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(7, 6))
        self.held = nn.Linear(6, 6).requires_grad_(False)
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        with torch.no_grad():
            gate = torch.sigmoid(self.held(x))
        x = torch.tanh((x * gate) @ (self.matrix / self.matrix.norm(dim=0)))
        return self.out(x)


class Outputs(nn.Module):
    """A stem and two heads; returns a tuple or a dict."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(7, 6)
        self.scores = nn.Linear(6, CLASSES)
        self.value = nn.Linear(6, 2)
        self.named = named

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.tanh(self.stem(x))
        scores, value = self.scores(x), self.value(x)
        return {"scores": scores, "value": value} if self.named else (scores, value)


def tuple_loss(output: Any, target: Any) -> torch.Tensor:
    """Cross-entropy of the first output, and mean square of the second."""
    return F.cross_entropy(output[0], target[0]) + 0.5 * F.mse_loss(output[1], target[1])


def dict_loss(output: Any, target: Any) -> torch.Tensor:
    """The same, by name."""
    return tuple_loss((output["scores"], output["value"]), target)


def two_targets(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of the two heads."""
    return labels()(batch), values(2)(batch)


def conv_variety() -> nn.Module:
    """Stride, dilation, depthwise, asymmetric kernels, "same" and circular padding."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Tanh(),
        nn.Conv2d(4, 6, (1, 3), padding="same", groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 3, 3, padding=1, padding_mode="circular"),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * 4 * 4, CLASSES),
    )


def autoencoder() -> nn.Module:
    """A transposed convolution back to the input's size."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.Tanh(),
        nn.Conv2d(3, 1, 3, padding=1),
    )


def segmenter() -> nn.Module:
    """Dense prediction: one class a pixel."""
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.ReLU(), nn.Conv2d(5, CLASSES, 1))


def conv1d() -> nn.Module:
    """One dimension, average pooling."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(4, 3, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(9, 3),
    )


def conv3d() -> nn.Module:
    """Three dimensions, adaptive pooling."""
    return nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, CLASSES))


def token_features() -> nn.Module:
    """(B, T, C) inputs to Linear, with layer norm, and a score for every position."""
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, CLASSES))


def embedding_mean() -> nn.Module:
    """A bag of words."""
    return nn.Sequential(nn.EmbeddingBag(VOCABULARY, 6, mode="mean"), nn.Tanh(), nn.Linear(6, CLASSES))


def torchvision_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model definition of torchvision, with random weights."""

    def build() -> nn.Module:
        models = pytest.importorskip("torchvision").models
        made: nn.Module = getattr(models, name)(weights=None, **options)
        return made

    return build


def convnext() -> nn.Module:
    """ConvNeXt: depthwise filters, norms over channels, a bare scale, images whose channels lie last in memory."""
    models = pytest.importorskip("torchvision").models.convnext
    setting = [models.CNBlockConfig(4, 6, 1), models.CNBlockConfig(6, None, 1)]
    made: nn.Module = models.ConvNeXt(setting, num_classes=CLASSES)
    return made


def torchvision_vit() -> nn.Module:
    """torchvision's ViT, whose attention runs over (length, batch, channels); its head starts at zero, here not."""
    models = pytest.importorskip("torchvision").models
    made: nn.Module = models.VisionTransformer(16, 8, 1, 2, 8, 12, num_classes=CLASSES)
    nn.init.normal_(made.heads.head.weight)
    return made


def hugging(kind: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of transformers from its configuration."""

    def build() -> nn.Module:
        with processor_time.shared():  # the first import takes seconds
            transformers = pytest.importorskip("transformers")
        made: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**options))
        return made

    return build


def gpt2(attention: str, **options: Any) -> nn.Module:
    """A tiny GPT-2 with its language head; embedding and head are tied."""
    return hugging(
        "GPT2LMHeadModel",
        "GPT2Config",
        vocab_size=VOCABULARY,
        n_positions=8,
        n_embd=8,
        n_layer=2 if attention == "eager" else 1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        attn_implementation=attention,
        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **options},
    )()


def bert(attention: str) -> nn.Module:
    """A tiny BERT that classifies."""
    return hugging(
        "BertForSequenceClassification",
        "BertConfig",
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        num_labels=CLASSES,
        use_cache=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )()


def vit(attention: str) -> nn.Module:
    """A tiny ViT that classifies."""
    return hugging(
        "ViTForImageClassification",
        "ViTConfig",
        image_size=8,
        patch_size=4,
        num_channels=2,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )()


def masked_words(batch: int) -> dict[str, torch.Tensor]:
    """Keyword inputs of a language model: tokens, and a mask that hides the last ones of some samples."""
    mask = torch.ones(batch, LENGTH, dtype=torch.int64)
    mask[::2, -2:] = 0
    return {"input_ids": integers(VOCABULARY, batch, LENGTH), "attention_mask": mask}


def logits(output: Any) -> torch.Tensor:
    found: torch.Tensor = output.logits
    return found


# Weights of classes, which a loss may hold.
WEIGHTS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
TOKEN_LABELS = labels(LENGTH, classes=VOCABULARY)

SMALL = (
    Case("mlp_tanh", lambda: mlp(nn.Tanh), rows(7), labels()),
    Case("mlp_relu_no_bias", lambda: mlp(nn.ReLU, bias=False), rows(7), labels()),
    Case("mlp_gelu", lambda: mlp(nn.GELU), rows(7), labels()),
    Case("mlp_silu", lambda: mlp(nn.SiLU), rows(7), labels()),
    Case("regression", lambda: mlp(nn.Tanh, outputs=1), rows(7), values(1), "mse"),
    Case("regression_many", lambda: mlp(nn.Tanh, outputs=4), rows(7), values(4), "mse"),
    Case("soft_labels", lambda: mlp(nn.Tanh), rows(7), lambda batch: values(CLASSES)(batch).softmax(1)),
    Case("class_weights", lambda: mlp(nn.Tanh), rows(7), labels(), nn.CrossEntropyLoss(weight=WEIGHTS)),
    Case("conv_bn_dropout", ConvNet, images(2, 8), labels()),
    Case("conv_variety", conv_variety, images(2, 8), labels()),
    Case("conv_transposed", autoencoder, images(1, 8), values(1, 8, 8), "mse"),
    Case("conv1d", conv1d, rows(2, 10), labels()),
    Case("conv3d", conv3d, rows(1, 5, 5, 5), labels()),
    Case("dense_prediction", segmenter, images(2, 5), labels(5, 5)),
    Case("sequence_linear", token_features, rows(LENGTH, 4), labels(LENGTH)),
    Case("residual", Residual, rows(7), labels()),
    Case("branches", Branches, rows(7), labels()),
    Case("shared_twice", SharedTwice, rows(7), labels()),
    Case("tied_embedding", TiedEmbedding, words(), TOKEN_LABELS),
    Case("embedding_bag", embedding_mean, words(), labels()),
    Case("lstm", lambda: Recurrent(nn.LSTM), words(), labels()),
    Case("lstm_two_layers", lambda: Recurrent(nn.LSTM, 2), words(), labels()),
    Case("gru", lambda: Recurrent(nn.GRU), words(), labels()),
    Case("attention", Attention, rows(LENGTH, 4), labels()),
    Case("encoder_layer", Encoder, rows(LENGTH, 4), labels()),
    Case("encoder_layer_norm_first", lambda: Encoder(norm_first=True), rows(LENGTH, 4), labels()),
    Case("bare_parameters", BareParameters, rows(LENGTH, 4), labels()),
    Case("reparametrised", Reparametrised, rows(7), labels()),
    Case("tuple_output", lambda: Outputs(named=False), rows(7), two_targets, tuple_loss),
    Case("dict_output", lambda: Outputs(named=True), rows(7), two_targets, dict_loss),
)

# Expansion, channels, repeats and stride of MobileNetV2's stages: the first four, with fewer repeats.
SHORT = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2], [6, 64, 1, 1]]

LARGE = (
    Case("resnet18", torchvision_model("resnet18", num_classes=CLASSES), images(3, 33), labels()),
    Case(
        "mobilenet_v2",
        torchvision_model("mobilenet_v2", num_classes=CLASSES, inverted_residual_setting=SHORT, width_mult=0.25),
        images(3, 20),
        labels(),
    ),
    Case("convnext", convnext, images(3, 16), labels()),
    Case("torchvision_vit", torchvision_vit, images(3, 16), labels()),
    Case("gpt2_eager", lambda: gpt2("eager"), masked_words, TOKEN_LABELS, logits=logits),
    Case("gpt2_sdpa", lambda: gpt2("sdpa"), masked_words, TOKEN_LABELS, logits=logits),
    Case("gpt2_dropout", lambda: gpt2("sdpa", resid_pdrop=0.2, attn_pdrop=0.1), words(), TOKEN_LABELS, logits=logits),
    Case("bert_eager", lambda: bert("eager"), masked_words, labels(), logits=logits),
    Case("bert_sdpa", lambda: bert("sdpa"), masked_words, labels(), logits=logits),
    Case("vit_eager", lambda: vit("eager"), images(2, 8), labels(), logits=logits),
    Case("vit_sdpa", lambda: vit("sdpa"), images(2, 8), labels(), logits=logits),
)

ZOO = {case.name: case for case in (*SMALL, *LARGE)}
