"""Learners that remember: nearest neighbours, and a table of codes."""

from collections.abc import Sequence

import torch

from altprop.ir.errors import LearnerError
from altprop.learners.base import Learner, rows


class Neighbours(Learner):
    """Nearest neighbours: the mean target of the `count` remembered inputs that are nearest.

    It remembers the last `keep` samples. Before the first step it predicts zeros.
    """

    def __init__(self, inputs: int, outputs: int, count: int = 5, keep: int = 5000, step: float = 1.0) -> None:
        """Makes an empty memory.

        Args:
            inputs: features of its input; further dimensions are flattened.
            outputs: numbers that it predicts.
            count: neighbours that are asked.
            keep: samples that are remembered.
            step: how far targets lie along the error.
        """
        super().__init__(step)
        if not 1 <= count <= keep:
            raise LearnerError(f"Neighbours: count={count}, keep={keep}; count is from 1 to keep.")
        self.inputs, self.outputs, self.count, self.keep = inputs, outputs, count, keep
        self.seen, self.said = torch.zeros(0, inputs), torch.zeros(0, outputs)

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """(outputs,)."""
        return (self.outputs,)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over the neighbours."""
        return self._asked(rows(x), self.seen, self.said)

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The mean input of those whose targets were nearest to `t`; the input itself before the first step."""
        if not len(self.seen):
            return x
        return self._asked(rows(t), self.said, self.seen).to(x).reshape(x.shape)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Remembers the samples, and forgets the oldest ones."""
        x, t = rows(x), rows(t)
        self.seen = torch.cat([self.seen.to(x.dtype), x])[-self.keep :].clone()
        self.said = torch.cat([self.said.to(t.dtype), t])[-self.keep :].clone()

    def _asked(self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        if not len(keys):
            return x.new_zeros(len(x), values.shape[1])
        count = min(self.count, len(keys))
        nearest = (
            torch.cdist(x.to(keys.dtype), keys, compute_mode="use_mm_for_euclid_dist")
            .topk(count, largest=False)
            .indices
        )
        return values[nearest].mean(1)

    def state(self) -> dict[str, torch.Tensor]:
        """What is remembered."""
        return {"seen": self.seen, "said": self.said}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the memory up."""
        self.seen, self.said = state["seen"].cpu(), state["said"].cpu()


class LookupTable(Learner):
    """A table: the input's nearest code says the prediction (vector quantisation).

    Codes begin as the first inputs that are learned, and then follow, by a share `rate`, the mean of the inputs that
    they are nearest to; so do their values. Codes that nothing is nearest to stay.
    """

    def __init__(
        self, inputs: int, outputs: int, codes: int = 64, rate: float = 0.2, step: float = 1.0, seed: int = 0
    ) -> None:
        """Makes an empty table.

        Args:
            inputs: features of its input; further dimensions are flattened.
            outputs: numbers that it predicts.
            codes: lines of the table.
            rate: how fast codes and values follow.
            step: how far targets lie along the error.
            seed: of the choice of the first codes.
        """
        super().__init__(step)
        if codes < 1 or not 0 < rate <= 1:
            raise LearnerError(
                f"LookupTable: codes={codes}, rate={rate}; codes is 1 or more, a rate above 0, at most 1."
            )
        self.inputs, self.outputs, self.codes, self.rate, self.seed = inputs, outputs, codes, rate, seed
        self.keys, self.values = torch.zeros(0, inputs), torch.zeros(0, outputs)

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """(outputs,)."""
        return (self.outputs,)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The value of the nearest code; zeros before the first step."""
        x = rows(x)
        if not len(self.keys):
            return x.new_zeros(len(x), self.outputs)
        return self.values[_nearest(x, self.keys)]

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The code whose value is nearest to `t`; the input itself before the first step."""
        if not len(self.keys):
            return x
        return self.keys[_nearest(rows(t), self.values)].to(x).reshape(x.shape)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Moves codes and values towards their inputs and targets; fills the table with the first samples."""
        x, t = rows(x), rows(t)
        missing = self.codes - len(self.keys)
        if missing > 0:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))[:missing]
            self.keys = torch.cat([self.keys.to(x.dtype), x[order]])
            self.values = torch.cat([self.values.to(t.dtype), t[order]])
        place = _nearest(x, self.keys)
        self.keys, self.values = self._followed(self.keys, place, x), self._followed(self.values, place, t)

    def _followed(self, table: torch.Tensor, place: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        samples = samples.to(table.dtype)
        count = torch.bincount(place, minlength=len(table)).unsqueeze(1)
        mean = torch.zeros_like(table).index_add_(0, place, samples) / count.clamp_min(1)
        return torch.where(count > 0, table + self.rate * (mean - table), table)

    def state(self) -> dict[str, torch.Tensor]:
        """The table."""
        return {"keys": self.keys, "values": self.values}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the table up."""
        self.keys, self.values = state["keys"].cpu(), state["values"].cpu()


def _nearest(x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x.to(keys.dtype), keys, compute_mode="use_mm_for_euclid_dist").argmin(1)
