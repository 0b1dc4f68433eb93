"""Learners made of learners."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from altprop.ir.errors import LearnerError
from altprop.learners.base import Learner


class Vote(Learner):
    """Several learners on the same input and target; the prediction is the mean of theirs."""

    def __init__(self, *learners: Learner, step: float | None = None) -> None:
        """Takes the learners; `step` is the first one's unless it is given."""
        if not learners:
            raise LearnerError("Vote: give one learner or more.")
        super().__init__(learners[0].step if step is None else step)
        self.learners = nn.ModuleList(learners)

    def _members(self) -> list[Learner]:
        return [one for one in self.learners if isinstance(one, Learner)]

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """The first one's; all must agree."""
        shapes = [tuple(one.shape(x)) for one in self._members()]
        if len(set(shapes)) > 1:
            raise LearnerError(f"Vote: its learners return {shapes}; they must return the same.")
        return shapes[0]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the predictions."""
        return torch.stack([one.predict(x).to(x.device) for one in self._members()]).mean(0)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Each learns by itself."""
        for one in self._members():
            one.learn(x, t)


class Rolling(Learner):
    """A new copy of a learner at every step; the prediction is the mean of the last `keep` that learned.

    Before the first step it predicts zeros.
    """

    def __init__(self, learner: Learner, keep: int = 10, step: float | None = None) -> None:
        """Takes the learner as it is before it has learned anything.

        Args:
            learner: what copies are made of; it does not learn itself.
            keep: copies that are kept.
            step: how far targets lie along the error; the learner's own if not given.
        """
        super().__init__(learner.step if step is None else step)
        if keep < 1:
            raise LearnerError(f"Rolling: keep={keep}; it is 1 or more.")
        self.keep = keep
        self.in_operators = learner.in_operators
        self._first = [learner]  # in lists, so that they are no modules of their own
        self._copies: list[Learner] = []

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """The learner's."""
        return self._first[0].shape(x)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the copies' predictions."""
        if not self._copies:
            return x.new_zeros((x.shape[0], *self.shape(x)))
        return torch.stack([one.predict(x) for one in self._copies]).mean(0)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """One more copy learns."""
        self._copies = [*self._copies, copy.deepcopy(self._first[0])][-self.keep :]
        self._copies[-1].learn(x, t)

    def state(self) -> dict[str, torch.Tensor]:
        """What the copies and the learners in them learned, with their numbers in front."""
        found = {f"{i}.{name}": value for i, one in enumerate(self._copies) for name, value in one.state_dict().items()}
        return {**found, "copies": torch.tensor(len(self._copies))}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the copies up."""
        self._copies = [copy.deepcopy(self._first[0]) for _ in range(int(state["copies"]))]
        for index, one in enumerate(self._copies):
            start = f"{index}."
            own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            one.load_state_dict(own)
