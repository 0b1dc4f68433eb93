"""Dense feedback that starts as the product of the forward weights between target and source (Han and Yoo 2019)."""

from collections.abc import Sequence

from altprop.rules.feedback.dense import Dense
from altprop.rules.feedback.kind import Part, Place, units


class Product(Dense):
    """Starts as the product of the forward weights on the way to the output (Han and Yoo 2019)."""

    name = "product"
    options = ("scale",)

    def parts(self, place: Place) -> Sequence[Part]:
        """The matrix, drawn from the weights that the model has when the net is made."""
        shape = self.shape(place)
        weights = place.weights_between()
        width = units(place.target.shape)
        for name, (rows, *columns) in reversed(weights):
            if len(columns) != 1 or columns[0] != width:
                raise place.fail(
                    f"feedback by product needs dense layers between the two, and {name} does not take the {width} "
                    "units that reach it: use dense feedback."
                )
            width = rows
        if not weights or width != shape[0]:
            raise place.fail("feedback by product needs dense layers all the way: use dense feedback.")
        names = [name for name, _ in weights]
        return [Part(shape, "", "product", float(place.option("scale", 1.0)), settings={"weights": names})]
