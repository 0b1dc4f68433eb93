"""Rules that say how they are wired by attributes and methods of the class, each on its own: the older form.

    class Mine(Rule):
        name: ClassVar[str] = "mine"
        plan: ClassVar[str] = "chain"

        def feedback(self, source, target, adjacent): ...

says the same as `about = About(name="mine")` and `wiring = Wiring(plan="chain", feedback=...)`. Such attributes are
gathered into the two when the class is made. For the sake of `super()` in such a class, and of who reads
`rule.name`, every rule has these attributes as well, made of the two.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from altprop.rules.about import equation_of
from altprop.rules.wiring import is_proportional

ABOUT = {name: name for name in ("name", "summary", "source", "equation", "sends", "listed", "recipe")} | {
    "error_equation": "equation"
}
"""The older names of what `About` holds."""

WIRING = {
    "plan": "plan",
    "along_edges": "along_edges",
    "needs_derivative": "reads_derivative",
    "learns_alone": "alone",
    "draws_noise": "draws_noise",
    "proportional": "proportional",
    "feedback": "feedback",
    "edge_feedback": "edge_feedback",
    "auxiliary": "auxiliary",
    "region_globs": "globs",
    "alternate": "alternate",
    "outer_rule": "outer",
    "inner_rule": "inner",
    "output_rule": "output",
    "follows_weights": "follows_weights",
    "check_connections": "check",
}
"""The older names of what `Wiring` holds."""


def said_by(cls: type, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the body of a class says under older names, by the newer ones.

    An annotated name that is no `ClassVar` is an option of the rule, which may be called anything.
    """
    options = {name for name, kind in _annotations(cls).items() if "ClassVar" not in str(kind)}
    body = {name: value for name, value in cls.__dict__.items() if name not in options and not _is_shown(value)}
    said = {new: body[old] for old, new in names.items() if old in body}
    if names is WIRING and "is_proportional" in body:
        grows = body["is_proportional"]
        said |= {"proportional": True, "unscaled": lambda rule: not grows(rule)}
    return said


def show(cls: type, about: Any, wiring: Any) -> None:
    """Gives a class the older names, but for those that its body uses itself."""
    taken = {*cls.__dict__, *_annotations(cls)}
    made = {old: getattr(about, new) for old, new in ABOUT.items()}
    made |= {old: getattr(wiring, new) for old, new in WIRING.items()}
    made |= {"error_equation": equation_of, "is_proportional": is_proportional}
    for name, value in made.items():
        if name not in taken:
            setattr(cls, name, _bound(value) if callable(value) else value)


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    def shown(rule: Any, *args: Any) -> Any:
        return function(rule, *args)

    return shown


def _is_shown(value: Any) -> bool:
    """Whether a class has a value from here: a class with slots is made twice."""
    return getattr(value, "__qualname__", "") == "_bound.<locals>.shown"


def _annotations(cls: type) -> dict[str, Any]:
    return inspect.get_annotations(cls)
