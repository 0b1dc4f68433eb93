"""Any estimator of scikit-learn as a learner."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from altprop.ir.errors import LearnerError
from altprop.learners.base import Learner, rows

_FITS = ("partial", "window", "warm")


class Scikit(Learner):
    """A regressor or a classifier of scikit-learn, or of anything that is used like one.

    A classifier predicts the probabilities of its classes; it learns that the largest number of each target is the
    class. Before the first step the prediction is zeros, or the same for all classes.
    """

    in_operators = False

    def __init__(
        self,
        estimator: Any,
        inputs: int,
        outputs: int,
        fit: str = "partial",
        step: float = 1.0,
        *,
        trusted: bool = False,
    ) -> None:
        """Makes the learner.

        Args:
            estimator: the estimator, not fitted yet; it is copied.
            inputs: features of its input; further dimensions are flattened.
            outputs: numbers that it predicts, or classes.
            fit: "partial": `partial_fit` on every batch. "window:5000": `fit` anew on the last 5000 samples. "warm":
                `fit` on every batch, of an estimator with `warm_start=True`, with as many estimators more as it had.
            step: how far targets lie along the error.
            trusted: whether checkpoints may hold the estimator as a pickle, which runs code when it is loaded. An
                estimator has no form in tensors, so without this a net with one cannot be saved.

        Raises:
            LearnerError: the estimator cannot be fitted so.
        """
        super().__init__(step)
        self.inputs, self.outputs, self.trusted = inputs, outputs, trusted
        self.fit, _, width = fit.partition(":")
        self.window = int(width) if width.isdigit() else 0
        _check_fit(estimator, fit, self.fit, self.window)
        self.estimator = _of_several(copy.deepcopy(estimator), outputs)
        self.classifies = _classifies(self.estimator)
        self.more = getattr(estimator, "n_estimators", 0)
        self.fitted = False
        self.seen, self.said = torch.zeros(0, inputs), torch.zeros(0, outputs)

    def shape(self, x: torch.Tensor) -> Sequence[int]:
        """(outputs,)."""
        return (self.outputs,)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """What the estimator says."""
        if not self.fitted:
            start = 1 / self.outputs if self.classifies else 0.0
            return x.new_full((x.shape[0], self.outputs), start, dtype=torch.float64)
        given = rows(x).double().numpy()
        if not self.classifies:
            return torch.from_numpy(np.asarray(self.estimator.predict(given), dtype=np.float64)).reshape(len(x), -1)
        made = torch.zeros(len(x), self.outputs, dtype=torch.float64)
        classes = torch.from_numpy(np.asarray(self.estimator.classes_, dtype=np.int64))
        if hasattr(self.estimator, "predict_proba"):
            made[:, classes] = torch.from_numpy(self.estimator.predict_proba(given)).double()
            return made
        said = torch.from_numpy(np.asarray(self.estimator.predict(given), dtype=np.int64))
        return made.scatter_(1, said.unsqueeze(1), 1.0)

    def learn(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """Fits the estimator, as `fit` says."""
        x, t = rows(x).double(), rows(t).double()
        if self.window:
            self.seen, self.said = (
                torch.cat([old.double(), new])[-self.window :].clone() for old, new in ((self.seen, x), (self.said, t))
            )
            x, t = self.seen, self.said
        said = t.argmax(1).numpy() if self.classifies else t.numpy() if self.outputs > 1 else t[:, 0].numpy()
        if self.fit == "partial":
            more = {"classes": np.arange(self.outputs)} if self.classifies else {}
            self.estimator.partial_fit(x.numpy(), said, **more)
        else:
            if self.fit == "warm" and self.fitted:
                self.estimator.n_estimators += self.more
            self.estimator.fit(x.numpy(), said)
        self.fitted = True

    def state(self) -> dict[str, torch.Tensor]:
        """The estimator as a pickle in a tensor of bytes, if it is trusted.

        Raises:
            LearnerError: it is not.
        """
        if not self.trusted:
            raise LearnerError(
                f"Scikit({type(self.estimator).__name__}): an estimator has no form in tensors; say trusted=True to "
                "keep it in checkpoints as a pickle, which runs code when it is loaded."
            )
        content = torch.frombuffer(bytearray(pickle.dumps(self.estimator)), dtype=torch.uint8)
        return {"estimator": content, "fitted": torch.tensor(self.fitted), "seen": self.seen, "said": self.said}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes the estimator up.

        Raises:
            LearnerError: it is not trusted.
        """
        if not self.trusted:
            raise LearnerError(
                "the checkpoint holds a pickled estimator, which runs code: say trusted=True to load it."
            )
        self.estimator = pickle.loads(state["estimator"].cpu().numpy().tobytes())
        self.fitted, self.seen, self.said = bool(state["fitted"]), state["seen"].cpu(), state["said"].cpu()


def _check_fit(estimator: Any, text: str, fit: str, window: int) -> None:
    name = type(estimator).__name__
    if fit not in _FITS or (fit == "window") != bool(window):
        raise LearnerError(f'Scikit: fit="{text}"; choose "partial", "window:5000" or another number, or "warm".')
    if fit == "partial" and not hasattr(estimator, "partial_fit"):
        raise LearnerError(f'Scikit: {name} has no partial_fit; use fit="window:5000".')
    if fit == "warm" and not (getattr(estimator, "warm_start", False) and hasattr(estimator, "n_estimators")):
        raise LearnerError(
            f'Scikit: fit="warm" adds estimators to one with warm_start=True and n_estimators; {name} is none.'
        )


def _classifies(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


def _of_several(estimator: Any, outputs: int) -> Any:
    """The estimator, or one for each output where it predicts one number alone."""
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    if outputs == 1 or _classifies(estimator) or get_tags(estimator).target_tags.multi_output:
        return estimator
    return MultiOutputRegressor(estimator)
