"""What a model's forward read that is no tensor: attributes, settings, functions, globals.

A capture fixes them in the graph. So the graph keeps a list of them, by where they stand, and whoever runs it asks
whether they are still what they were.
"""

import dataclasses
from typing import Any

from torch import nn

VALUE, IDENTITY, LENGTH = "value", "identity", "length"

Place = tuple[Any, Any]
"""A mapping or list, and the key of a value in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """One thing that forward read.

    Attributes:
        owner: path of the module that it was read from; "" for the model itself.
        steps: the way from there: ("attribute", name), ("class", name) or ("item", key), one after the other.
        kind: what must stay: a VALUE, the IDENTITY of an object, or the LENGTH of a list or mapping.
        value: what it was.
        table: where it stands, if that is no module of the model: globals of a function, attributes of a loss. Then
            `steps` has its key alone.
        label: what a message says behind its name, with a table.
        known_as: its name in messages, with a table; its key unless one is given.
    """

    owner: str
    steps: tuple[tuple[str, Any], ...]
    kind: str
    value: Any
    table: Any = None
    label: str = ""
    known_as: str = ""

    @staticmethod
    def of_table(table: Any, key: Any, kind: str, label: str, known_as: str = "") -> "Read":
        """Builds a read of what stands in a mapping now, or in what is indexed like one."""
        value = len(table[key]) if kind == LENGTH else table[key]
        return Read("", (("item", key),), kind, value, table, label, known_as)

    def places(self, model: nn.Module) -> list[Place]:
        """Returns where it stands in a model, behind the places of all that lies on the way there.

        Raises:
            AttributeError, KeyError, IndexError, TypeError: it stands there no more.
        """
        holder: Any = self.table if self.table is not None else model.get_submodule(self.owner)
        found: list[Place] = []
        for step, name in self.steps:
            table = _table(holder, step, name)
            holder = table[name]
            found.append((table, name))
        return found

    def now(self, model: nn.Module) -> Any:
        """Returns what stands there in a model now; an object that equals nothing else where nothing does."""
        try:
            table, key = self.places(model)[-1]
            return table[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            return _GONE

    @property
    def name(self) -> str:
        """Its name in messages, such as `"d.p"` or `"config.scale"`."""
        if self.table is not None:
            return f"{self.known_as or self.steps[-1][1]} {self.label}"
        text = self.owner
        for step, name in self.steps:
            text += f"[{name!r}]" if step == "item" else f".{name}"
        return text.removeprefix(".")

    def fits(self, present: Any, wanted: Any) -> bool:
        """Whether a present value is what it was.

        Args:
            present: what stands there now.
            wanted: `value`, or the object that stands for it in a copy of the model.
        """
        if self.kind == LENGTH:
            return hasattr(present, "__len__") and len(present) == wanted
        if present is wanted or self.kind == IDENTITY:
            return present is wanted
        return type(present) is type(wanted) and bool(present == wanted)


_GONE = object()


def _table(holder: Any, step: str, name: Any) -> Any:
    if step == "item":
        return holder
    if step == "attribute" or name in vars(holder):
        return vars(holder)
    return next(vars(kind) for kind in type(holder).__mro__ if name in vars(kind))
