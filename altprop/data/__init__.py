"""Small loaders for the data sets that the command line and the examples train on.

A *split* is a set of images with their labels; a *data set* holds three of them: training, validation and
test. Images stay 8-bit in memory and become numbers a batch at a time (`DataSet.inputs`).

Nothing is downloaded: a missing file is a `DataError` that says which files are wanted, where they can be
had, and where to put them.
"""

from altprop.data.dataset import DataError, DataSet, Split
from altprop.data.load import available, default_folder, load
from altprop.data.sampler import BatchSampler

__all__ = ["BatchSampler", "DataError", "DataSet", "Split", "available", "default_folder", "load"]
