"""A character model of tiny Shakespeare, transformer or LSTM, by direct feedback alignment and by rec-LRA.

    python examples/characters.py --data-dir data --model transformer

What a model must beat is the entropy of single characters: the loss of one that only knows how often each occurs.
Errors of the output run to every position of a block by one matrix a block. The control's hidden layers stay as they
were made, so that only the output layer learns.

Under direct feedback the output layer must follow hidden layers that move along errors which it did not send, so it
learns ten times as fast as they do. With one rate for all, the loss stays behind the control's.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
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
CONTROL = "output layer alone"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to train, and how fast each part learns."""

    steps: int
    length: int
    lr: float
    output_lr: float
    feedback_lr: float
    regions: str


def train(text: Characters, model: str, rule: str, chosen: Settings) -> float:
    """Trains once; returns the mean loss on fixed windows of the validation text, in nats."""
    torch.manual_seed(0)
    made = MODELS[model](len(text.alphabet), chosen.length)
    example = torch.zeros(32, chosen.length, dtype=torch.int64)
    if rule == CONTROL:
        made.requires_grad_(False)
        made.head.requires_grad_(True)
        net = altprop.compile(made, "bp", example_inputs=(example,))
    else:
        net = altprop.compile(made, rule, example_inputs=(example,), regions=chosen.regions)
    optimizer = torch.optim.AdamW(groups_of(net, chosen), weight_decay=0.0)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
    generator = torch.Generator().manual_seed(1)
    for _ in track(range(chosen.steps), f"{model} by {rule}", transient=True, disable=not sys.stdout.isatty()):
        optimizer.zero_grad()
        net.backward(*text.batch(32, chosen.length, generator))
        optimizer.step()
        falling.step()
    return evaluate(net, text, chosen.length)


def groups_of(net: altprop.LocalNet, chosen: Settings) -> list[dict[str, Any]]:
    """The output layer, which has to follow what the hidden ones do; the hidden layers; learned feedback."""
    trained = [(name, p) for name, p in net.model.named_parameters() if p.requires_grad]
    feedback = [p for p in net.feedback_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name.startswith("head")], "lr": chosen.output_lr},
        {"params": [p for name, p in trained if not name.startswith("head")], "lr": chosen.lr},
        {"params": feedback, "lr": chosen.feedback_lr, "weight_decay": 0.1},
    ]
    return [group for group in groups if group["params"]]


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
    steps: Annotated[int, typer.Option(min=1, help="Steps of 32 windows.")] = 2000,
    length: Annotated[int, typer.Option(min=2, help="Characters in a window.")] = 32,
    regions: Annotated[str, typer.Option(help="block: one error a block; layer: three.")] = "block",
    lr: Annotated[float, typer.Option("--lr", help="Learning rate of hidden layers.")] = 5e-4,
    output_lr: Annotated[float, typer.Option(help="Learning rate of the output layer.")] = 5e-3,
    feedback_lr: Annotated[float, typer.Option(help="Learning rate of learned feedback.")] = 5e-3,
) -> None:
    """Train a character model by local rules; print its loss beside the entropy of single characters and a control."""
    if model not in MODELS:
        raise typer.BadParameter(f"'{model}' is neither transformer nor lstm")
    try:
        text = load_characters(data_dir or os.environ.get("ALTPROP_DATA") or "data")
    except DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    print(f"entropy of single characters {text.unigram_entropy():.3f} nats", flush=True)
    chosen = Settings(steps, length, lr, output_lr, feedback_lr, "layer" if model == "lstm" else regions)
    for rule in (CONTROL, *rules.split(",")):
        loss = train(text, model, rule, chosen)
        print(f"{model} by {rule}: validation loss {loss:.3f} nats after {steps} steps", flush=True)


if __name__ == "__main__":
    typer.run(main)
