"""Dense feedback that starts as the product of the forward weights between target and source (Han and Yoo 2019)."""

from collections.abc import Sequence

from altprop.rules.feedback.dense import Dense, product
from altprop.rules.feedback.kind import Part, Place


class Product(Dense):
    """Starts as the product of the forward weights on the way to the output (Han and Yoo 2019)."""

    name = "product"
    options = ("scale",)
    starts = ()

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, made of the weights that the model has when the net is made."""
        return [product(place, self.shape(place))]
