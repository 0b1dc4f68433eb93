"""What lets errors cross a learner that knows no targets for its input."""

from collections.abc import Sequence

import torch

from altprop.ir.errors import LearnerError
from altprop.learners.base import Learner, rows


class _Around(Learner):
    """A learner inside another, which adds targets for the input."""

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner.step)
        self.inner = learner

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """The learner's."""
        return self.inner.shape(x)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The learner's."""
        return self.inner.predict(x)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """The learner's."""
        self.inner.learn(x, t)


class Surrogate(_Around):
    """A learner and a linear map beside it that is fitted to what it predicts; errors cross by the map's transpose.

    A, a = the ridge solution of x A + a = z over the batch, mixed by `rate` into what was
    target(x, t) = x - (z - t) A'
    """

    def __init__(self, learner: Learner, rate: float = 0.2, lam: float = 1.0) -> None:
        """Puts the map beside a learner.

        Args:
            learner: the learner.
            rate: share of the newest batch's solution in the map.
            lam: weight of the map's own size.
        """
        super().__init__(learner)
        self.rate, self.lam = rate, lam
        self.map: torch.Tensor | None = None

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Against the error, by the map's transpose; the input itself before the first step."""
        if self.map is None:
            return x
        e = rows(self.inner.predict(x)).to(self.map) - rows(t).to(self.map)
        return x - (e @ self.map.t()).reshape(x.shape).to(x)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Fits the map to the predictions, then lets the learner learn."""
        given, made = rows(x).double(), rows(self.inner.predict(x)).double()
        given, made = given - given.mean(0), made - made.mean(0)
        gram = given.t() @ given + self.lam * torch.eye(given.shape[1], dtype=torch.float64)
        fitted = torch.linalg.solve(gram, given.t() @ made)
        self.map = fitted if self.map is None else torch.lerp(self.map, fitted, self.rate)
        self.inner.learn(x, t)

    def state(self) -> dict[str, torch.Tensor]:
        """The map."""
        return {} if self.map is None else {"map": self.map}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the map up."""
        self.map = state["map"].cpu() if "map" in state else None


class Inverse(_Around):
    """A learner and another beside it that learns to tell its input from its prediction.

    As in mGBDT (Feng, Yu and Zhou 2018), where both are trees, but for the difference:

    back learns from (predict(x + sigma n), x + sigma n),    n ~ N(0, 1)
    target(x, t) = x + back(t) - back(predict(x))
    """

    def __init__(self, learner: Learner, back: Learner, sigma: float = 0.1, seed: int = 0) -> None:
        """Puts the way back beside a learner.

        Args:
            learner: the learner.
            back: a learner that reads predictions and predicts inputs.
            sigma: of the noise under which the way back is learned.
            seed: of what is drawn; the global random state is left alone.
        """
        super().__init__(learner)
        self.back, self.sigma, self.seed, self.count = back, sigma, seed, 0

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """As far from the input as what the way back says of target and prediction is apart."""
        apart = self.back.predict(t) - self.back.predict(self.inner.predict(x).to(t))
        return x + apart.reshape(x.shape).to(x)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Learns the way back of what the learner says now, then lets the learner learn."""
        generator = torch.Generator().manual_seed((self.seed << 32) + self.count)
        self.count += 1
        near = x + self.sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        self.back.learn(self.inner.predict(near), rows(near))
        self.inner.learn(x, t)

    def state(self) -> dict[str, torch.Tensor]:
        """The count of steps."""
        return {"count": torch.tensor(self.count)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the count up."""
        self.count = int(state["count"])


class Search(_Around):
    """A learner whose input's targets are found by trying: antithetic differences at the input.

    E(x) = |predict(x) - t|^2 / 2 of each sample,    n_m ~ N(0, 1)
    target(x, t) = x - mean over m of (E(x + sigma n_m) - E(x - sigma n_m)) / (2 sigma) n_m
    """

    def __init__(self, learner: Learner, members: int = 8, sigma: float = 0.1, seed: int = 0) -> None:
        """Puts the search around a learner.

        Args:
            learner: the learner.
            members: pairs of inputs that are tried.
            sigma: how far they lie from the input.
            seed: of what is drawn; the global random state is left alone.
        """
        super().__init__(learner)
        if members < 1 or not sigma > 0:
            raise LearnerError(f"Search: members={members}, sigma={sigma}; members is 1 or more, sigma above 0.")
        self.members, self.sigma, self.seed, self.count = members, sigma, seed, 0

    def target(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Down the estimated slope."""
        generator = torch.Generator().manual_seed((self.seed << 32) + self.count)
        slope = torch.zeros_like(x)
        for _ in range(self.members):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            far = self._distance(x + self.sigma * noise, t) - self._distance(x - self.sigma * noise, t)
            slope += (far.to(x) / (2 * self.sigma)).reshape(-1, *[1] * (x.dim() - 1)) * noise
        return x - slope / self.members

    def _distance(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (rows(self.inner.predict(x)).double() - rows(t).double()).square().sum(1) / 2

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Lets the learner learn; the next step tries other inputs."""
        self.count += 1
        self.inner.learn(x, t)

    def state(self) -> dict[str, torch.Tensor]:
        """The count of steps."""
        return {"count": torch.tensor(self.count)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the count up."""
        self.count = int(state["count"])
