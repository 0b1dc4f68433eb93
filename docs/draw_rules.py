"""Draws docs/rules/*.svg, the pathways of the rules on one network of four layers: `python docs/draw_rules.py`.

They are altprop's own drawings, `net.graph.draw`, of a net that is compiled for the rule.
"""

from pathlib import Path

import torch
from torch import nn

import altprop

FOLDER = Path(__file__).parent / "rules"
# Rules whose pathway shows only under a plan of their own.
PLANS = {"modular": "modules(gap=2)"}


class FourLayers(nn.Module):
    """Three hidden layers and the output."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, 8) to (N, 3)."""
        return self.out(torch.tanh(self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))))


def main() -> None:
    """Draws one picture a rule."""
    FOLDER.mkdir(exist_ok=True)
    for rule in altprop.rules.available():
        torch.manual_seed(0)
        net = altprop.compile(FourLayers(), rule, example_inputs=(torch.zeros(2, 8),), plan=PLANS.get(rule))
        net.graph.draw(FOLDER / f"{rule}.svg")


if __name__ == "__main__":
    main()
