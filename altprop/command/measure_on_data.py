"""A batch of a data set for commands that measure a net which was not trained."""

from torch import Tensor

from altprop.command.choice import Choice
from altprop.command.options import parse_shape
from altprop.command.screen import CommandError
from altprop.data import load


def first_batch(choice: Choice, folder: str | None) -> tuple[Tensor, Tensor]:
    """Return the first training samples of the data set that was chosen, and their labels.

    Args:
        choice: its `batch` says how many samples.
        folder: where the files of the data set are; None looks where `altprop.data.load` does.

    Raises:
        CommandError: no data set was named, or the model was asked to take samples of another shape or type.
        DataError: the set is not known, or its files are missing or damaged.
    """
    if choice.data is None:
        raise CommandError("--measure needs inputs with labels: name a data set, such as --data digits")
    data = load(choice.data, folder)
    _check_samples(choice, data.shape)
    split = data.train
    return data.inputs(split.images[: choice.batch]), split.labels[: choice.batch]


def _check_samples(choice: Choice, shape: tuple[int, ...]) -> None:
    """Refuse inputs that are not those of the data set."""
    asked = [parse_shape(text) for text in choice.input_shape or []]
    if len(asked) > 1:
        raise CommandError(
            f"--measure takes its inputs from --data {choice.data}, which has one for each sample; a model of "
            f"{len(asked)} inputs is measured in Python, by net.measure((first, second), target)"
        )
    if asked and asked != [shape]:
        raise CommandError(
            f"--measure takes its inputs from --data {choice.data}, whose samples are {','.join(map(str, shape))}: "
            "leave --input-shape out"
        )
    if choice.input_type != "float32":
        raise CommandError(
            f"--measure takes its inputs from --data {choice.data}, which are float32: leave --input-type out"
        )
