"""Regression trees as tensors, and learners that are made of them.

A tree is fitted by scikit-learn and kept as tensors, so that it saves, moves and predicts without it.
"""

from collections.abc import Sequence

import torch

from altprop.ir.errors import LearnerError
from altprop.learners.base import Learner, rows

_PARTS = ("left", "right", "feature", "threshold", "value")
Tree = dict[str, torch.Tensor]
"""By node: its children (-1 at a leaf), the feature that it asks, the threshold, and the value (nodes, outputs)."""


def fit_tree(x: torch.Tensor, t: torch.Tensor, depth: int | None, leaf: int, seed: int, features: float = 1.0) -> Tree:
    """Fits one regression tree, as `DecisionTreeRegressor` does.

    Args:
        x: (N, features).
        t: (N, outputs).
        depth: at most so many questions in a row.
        leaf: samples in a leaf, at least.
        seed: of ties between features, and of those that are left out.
        features: share of the features that each question chooses from.

    Raises:
        LearnerError: scikit-learn is not installed.
    """
    try:
        from sklearn.tree import DecisionTreeRegressor
    except ImportError as error:
        raise LearnerError("trees are fitted by scikit-learn: pip install 'altprop[learners]'.") from error
    fitted = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=leaf, max_features=features, random_state=seed)
    tree = fitted.fit(x.numpy(), t.numpy()).tree_
    return {
        "left": torch.from_numpy(tree.children_left.copy()).to(torch.int64),
        "right": torch.from_numpy(tree.children_right.copy()).to(torch.int64),
        "feature": torch.from_numpy(tree.feature.copy()).to(torch.int64),
        "threshold": torch.from_numpy(tree.threshold.copy()),
        "value": torch.from_numpy(tree.value[:, :, 0].copy()),
    }


def answer(trees: Sequence[Tree], x: torch.Tensor) -> torch.Tensor:
    """Returns what each tree says: (trees, N, outputs), in float64.

    As in scikit-learn, inputs are rounded to float32 before they are compared.
    """
    size = max(len(tree["left"]) for tree in trees)
    left, right, feature, threshold, value = (_stacked([tree[part] for tree in trees], size) for part in _PARTS)
    x = x.to(torch.float32).to(torch.float64)
    place = torch.zeros(len(trees), x.shape[0], dtype=torch.int64)
    for _ in range(max(_depth(tree) for tree in trees)):
        child = left.gather(1, place)
        asked = feature.gather(1, place).clamp_min(0)
        given = x.gather(1, asked.t()).t()
        below = given <= threshold.gather(1, place)
        place = torch.where(child < 0, place, torch.where(below, child, right.gather(1, place)))
    return value.gather(1, place.unsqueeze(-1).expand(-1, -1, value.shape[-1]))


def _depth(tree: Tree) -> int:
    """The most questions in a row; children stand behind their parents."""
    depth = [0] * len(tree["left"])
    for node, (left, right) in enumerate(zip(tree["left"].tolist(), tree["right"].tolist(), strict=True)):
        for child in (left, right):
            if child >= 0:
                depth[child] = depth[node] + 1
    return max(depth)


def _stacked(parts: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    made = parts[0].new_full((len(parts), size, *parts[0].shape[1:]), -1)
    for row, part in zip(made, parts, strict=True):
        row[: len(part)] = part
    return made


class Forest(Learner):
    """A rolling forest: every step fits one tree, and the mean of the last `keep` of them is the prediction.

    Before the first step it predicts zeros.

    Attributes:
        trees: oldest first.
        count: trees fitted so far.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        keep: int = 20,
        depth: int | None = 10,
        leaf: int = 1,
        step: float = 1.0,
        seed: int = 0,
        window: int = 0,
        features: float = 1.0,
    ) -> None:
        """Makes an empty forest.

        Args:
            inputs: features of its input; further dimensions are flattened.
            outputs: numbers that it predicts.
            keep: trees that are kept.
            depth: of a tree, at most; None for no limit.
            leaf: samples in a leaf, at least.
            step: how far targets lie along the error.
            seed: of the trees; tree number n takes `seed + n`.
            window: each tree is fitted on the last so many samples, and on all of its own step.
            features: share of the features that each question of a tree chooses from, drawn anew each time. With less
                than all of them trees of the same samples differ, as in a random forest.

        Raises:
            LearnerError: `keep` or `features` is out of its range.
        """
        super().__init__(step)
        if keep < 1 or not 0 < features <= 1:
            raise LearnerError(
                f"{type(self).__name__}: keep={keep}, features={features}; keep is 1 or more, features a share above 0."
            )
        self.inputs, self.outputs, self.keep, self.depth, self.leaf, self.seed = (
            inputs,
            outputs,
            keep,
            depth,
            leaf,
            seed,
        )
        self.window, self.features = window, float(features)
        self.seen: tuple[torch.Tensor, torch.Tensor] | None = None
        self.trees: list[Tree] = []
        self.count = 0

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """(outputs,)."""
        return (self.outputs,)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the trees."""
        if not self.trees:
            return x.new_zeros((x.shape[0], self.outputs), dtype=torch.float64)
        return answer(self.trees, rows(x)).mean(0)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Fits one more tree, and forgets the oldest if there are too many."""
        x, t = rows(x), rows(t)
        if self.window and self.seen is not None:
            keep = max(self.window, len(x))
            x, t = (torch.cat(pair)[-keep:] for pair in zip(self.seen, (x, t), strict=True))
        if self.window:
            self.seen = x, t
        self._grow(x, t)

    def _grow(self, x: torch.Tensor, t: torch.Tensor) -> None:
        self.trees.append(fit_tree(x, t, self.depth, self.leaf, self.seed + self.count, self.features))
        self.trees = self.trees[-self.keep :]
        self.count += 1

    def state(self) -> dict[str, torch.Tensor]:
        """The trees' tensors, one tree behind the other."""
        made = {part: torch.cat([tree[part] for tree in self.trees]) for part in _PARTS} if self.trees else {}
        sizes = torch.tensor([len(tree["left"]) for tree in self.trees], dtype=torch.int64)
        seen = {} if self.seen is None else {"seen": self.seen[0], "said": self.seen[1]}
        return {**made, **seen, "sizes": sizes, "count": torch.tensor(self.count)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the trees up."""
        self.count = int(state["count"])
        self.seen = (state["seen"].cpu(), state["said"].cpu()) if "seen" in state else None
        sizes = state["sizes"].tolist()
        parts = {part: state[part].cpu().split(sizes) for part in _PARTS} if sizes else {}
        self.trees = [{part: parts[part][index] for part in _PARTS} for index in range(len(sizes))]

    def extra_repr(self) -> str:
        """Sizes and limits."""
        return f"{self.inputs}, {self.outputs}, keep={self.keep}, depth={self.depth}"


class Boosted(Forest):
    """Boosted trees: every step fits one tree to what is missing, `t - z`, and adds `rate` times it.

    The oldest tree is forgotten once there are more than `keep`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        keep: int = 200,
        depth: int | None = 4,
        leaf: int = 1,
        rate: float = 0.3,
        step: float = 1.0,
        seed: int = 0,
        features: float = 1.0,
    ) -> None:
        """Makes an empty sum; see `Forest`. `rate` is the share of a tree that is added."""
        super().__init__(inputs, outputs, keep, depth, leaf, step, seed, features=features)
        self.rate = rate

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of the trees, times the rate."""
        return super().predict(x) * (self.rate * len(self.trees))

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Fits one more tree to what is missing."""
        self._grow(rows(x), rows(t).double() - self.predict(x).cpu())
