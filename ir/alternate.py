"""Programs that follow another rule in some of their steps.

A net may have each of its programs twice: by its own rules, and by the *alternate* ones, under the same name with
`SUFFIX` behind it. At every step chance decides, as a function of the net's seed and the number of the step, which
is run. Each has momenta of its own in the optimizer.
"""

import dataclasses
import hashlib

SUFFIX = ":alternate"
OTHER = "alternate_"
"""What stands before the names of the optimizer's tensors that belong to the alternate program."""


class Turns:
    """How many steps each of two programs has made; it goes on counting from where it was asked last."""

    def __init__(self, alternation: "Alternation", seed: int) -> None:
        """Takes how a net's programs take turns, and its seed."""
        self.alternation = alternation
        self.seed = seed
        self._step = self._alternates = 0

    def upto(self, step: int) -> tuple[int, int]:
        """Returns how many of the first steps were the net's own, and how many the alternate's."""
        if step < self._step:
            self._step = self._alternates = 0
        while self._step < step:
            self._step += 1
            self._alternates += self.alternation.is_alternate(self.seed, self._step)
        return step - self._alternates, self._alternates


@dataclasses.dataclass(frozen=True)
class Alternation:
    """How two programs take turns.

    Attributes:
        probability: of a step by the alternate program.
        share: of its own momentum in what a step of the net's own program moves parameters by; the rest is that of
            the alternate one.
        exact: regions that the alternate program moves by backpropagation; the compiler fills it in.
    """

    probability: float
    share: float = 1.0
    exact: frozenset[str] = frozenset()

    def is_alternate(self, seed: int, step: int) -> bool:
        """Whether a step follows the alternate rules.

        Args:
            seed: of the net.
            step: its number, from 1.
        """
        digest = hashlib.sha256(f"{seed}:alternate:{step}".encode()).digest()
        return int.from_bytes(digest[:7], "little") / 2**56 < self.probability
