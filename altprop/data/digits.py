"""The 1,797 8x8 digits that come with scikit-learn: always there, no download."""

import torch

from altprop.data.dataset import DataError, DataSet, hold_out

TEST = 360
VALIDATION = 180


def load_digits(validation: int | None = None) -> DataSet:
    """Load scikit-learn's digits: 1,257 training, 180 validation and 360 test images of 1x8x8."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError("the digits come with scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    counts = [VALIDATION if validation is None else validation, TEST]
    train, valid, test = hold_out(images, labels, counts)
    return DataSet("digits", train, valid, test, top=16)
