"""How well a net does on a split."""

from dataclasses import dataclass

import torch
from torch import nn

from altprop.data import DataSet, Split


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy a sample, and the share of samples whose largest output is their label."""

    loss: float
    accuracy: float


def evaluate(net: nn.Module, data: DataSet, split: Split, batch_size: int = 500) -> Score:
    """Score a net in evaluation mode; the net is put back into training mode.

    Args:
        net: maps inputs to one number a class.
        data: the data set, which knows how images become inputs.
        split: the split of it to score.
        batch_size: samples at a time; it does not change what is measured.
    """
    net.eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for inputs, labels in data.batches(split, batch_size):
            outputs = net(inputs)
            loss += nn.functional.cross_entropy(outputs, labels, reduction="sum").item()
            correct += int((outputs.argmax(1) == labels).sum())
    net.train()
    return Score(loss / len(split), correct / len(split))
