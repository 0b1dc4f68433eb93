"""A character model of tiny Shakespeare, transformer or LSTM, by direct feedback alignment and by rec-LRA.

    python examples/characters.py --data-dir data --model transformer

What a model must beat is the entropy of single characters: the loss of one that only knows how often each occurs.
Errors of the output run to every position of every layer by one matrix a layer. `--frozen` adds a control whose
hidden layers stay as they were made, so that only the output layer learns.
"""

import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

import altprop
from altprop.data import DataError
from altprop.data.characters import Characters, load_characters


class Transformer(nn.Module):
    """Embedding, positions, two causal layers, and a score for every character at every position."""

    def __init__(self, characters: int, length: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.positions
        for layer in self.layers:
            x = layer(x, src_mask=self.mask)
        return self.head(self.norm(x))


class Recurrent(nn.Module):
    """Embedding, an LSTM, and a score for every character at every position."""

    def __init__(self, characters: int, length: int, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, 32)
        self.cell = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(self.embed(tokens))[0])


MODELS = {"transformer": Transformer, "lstm": Recurrent}


def train(text: Characters, model: str, rule: str, steps: int, length: int, lr: float, frozen: bool) -> float:
    """Trains once; returns the mean loss on fixed windows of the validation text, in nats."""
    torch.manual_seed(0)
    made = MODELS[model](len(text.alphabet), length)
    if frozen:
        made.requires_grad_(False)
        made.head.requires_grad_(True)
    example = torch.zeros(32, length, dtype=torch.int64)
    optimizer = altprop.optim.Adam(lr=lr)
    net = altprop.compile(made, rule, example_inputs=(example,), optimizer=optimizer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        net.step(*text.batch(32, length, generator))
    return evaluate(net, text, length)


def evaluate(net: altprop.LocalNet, text: Characters, length: int) -> float:
    """Mean loss on 256 windows of the validation text."""
    net.eval()
    rows = text.validation[: 256 * (length + 1)].view(256, length + 1)
    output = net(rows[:, :-1])
    return float(nn.functional.cross_entropy(output.flatten(0, 1), rows[:, 1:].flatten()))


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Where the data sets' files are.")] = None,
    model: Annotated[str, typer.Option(help="transformer or lstm.")] = "transformer",
    rules: Annotated[str, typer.Option(help="Rules, with commas between.")] = "dfa,reclra,bp",
    steps: Annotated[int, typer.Option(min=1, help="Steps of 32 windows.")] = 1000,
    length: Annotated[int, typer.Option(min=2, help="Characters in a window.")] = 32,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of Adam.")] = 1e-3,
    frozen: Annotated[bool, typer.Option("--frozen", help="Also train the output layer alone.")] = False,
) -> None:
    """Train a character model by local rules, and print its loss beside the entropy of single characters."""
    if model not in MODELS:
        raise typer.BadParameter(f"'{model}' is neither transformer nor lstm")
    try:
        text = load_characters(data_dir or os.environ.get("ALTPROP_DATA") or "data")
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    print(f"entropy of single characters {text.unigram_entropy():.3f} nats", flush=True)
    runs = [(rule, rule, False) for rule in rules.split(",")] + ([("output layer alone", "bp", True)] if frozen else [])
    for label, rule, held in runs:
        loss = train(text, model, rule, steps, length, lr, held)
        print(f"{model} by {label}: validation loss {loss:.3f} nats after {steps} steps", flush=True)


if __name__ == "__main__":
    typer.run(main)
