"""The zoo's models from torchvision and transformers, small and with random weights."""

from collections.abc import Callable
from typing import Any

import processor_time
import pytest
import torch
from torch import nn
from zoo_cases import CLASSES, LENGTH, VOCABULARY, integers


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
