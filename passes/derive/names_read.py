"""Notes what a rule looks at that other regions need not share: names, and the forward to the source of an error."""

from typing import Any

_NAMELESS = (
    "shape",
    "output_shape",
    "error_shape",
    "units",
    "error_units",
    "is_output",
    "ends_in_activation",
    "feedback",
)


class NameWatch:
    """Hands out regions and connections.

    Attributes:
        names_read: whether a name of theirs was read.
        ran_stretch: whether the forward between a region and the source of a bare connection was asked for.
    """

    def __init__(self) -> None:
        self.names_read = False
        self.ran_stretch = False

    def of(self, watched: Any) -> Any:
        """Returns a view of a region or a connection that reads like it."""
        return _Watched(watched, self)


class _Watched:
    def __init__(self, watched: Any, watch: NameWatch) -> None:
        self._watched = watched
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMELESS:
            self._watch.names_read = True
        return getattr(self._watched, name)
