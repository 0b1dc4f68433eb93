"""The zoo: small models of every kind that the compiler must handle, with inputs, targets and a loss."""

import torch
from torch import nn
from zoo_cases import CLASSES, LENGTH, VOCABULARY, Case, images, labels, rows, values, words
from zoo_large import bert, convnext, gpt2, logits, masked_words, torchvision_model, torchvision_vit, vit
from zoo_small import (
    Attention,
    BareParameters,
    Branches,
    ConvNet,
    Encoder,
    Outputs,
    Recurrent,
    Reparametrised,
    Residual,
    SharedTwice,
    TiedEmbedding,
    autoencoder,
    conv1d,
    conv3d,
    conv_variety,
    dict_loss,
    embedding_mean,
    mlp,
    segmenter,
    token_features,
    tuple_loss,
    two_targets,
)

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
