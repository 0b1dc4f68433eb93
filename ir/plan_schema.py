"""The schema of plan files: pydantic models that say which keys a plan has, and of which type.

A *document* is a plan as plain dicts, lists, texts, numbers and truth values. JSON and GraphML files are two
notations of the same document, so both are checked here.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from altprop.ir.errors import PlanError
from altprop.ir.json_document import parse_json, shown
from altprop.ir.plan import VERSION, Connection, Feedback, RegionPlan, WiringPlan

SCHEMA = "altprop/wiring-plan"
_SHOWN = 8  # problems that one message lists


def printable(text: str) -> str:
    """Returns `text`, which must be one printable line without spaces around it.

    Raises:
        ValueError: it is not.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(f"{shown(text)} is empty, or has spaces around it, or characters that do not print")
    return text


def json_text(value: Any) -> str:
    """Returns a value of an option as JSON.

    Raises:
        ValueError: JSON has no form for it, such as a tensor or a number that is not finite.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{shown(value)} has no form in a file; use numbers, texts, lists and truth values") from error
    except ValueError as error:
        raise ValueError(f"{shown(value)} has no form in a file; numbers must be finite") from error
    back = parse_json(text, "the value", ValueError)
    if back != value:
        raise ValueError(f"{shown(value)} would read back as {shown(back)}; write it so")
    return text


def _options(options: dict[str, Any]) -> dict[str, Any]:
    json_text(options)
    return options


Line = Annotated[str, AfterValidator(printable)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FeedbackDocument(_Model):
    """What stands on a connection."""

    kind: Line
    options: Annotated[dict[str, Any], AfterValidator(_options)] = Field(default_factory=dict)
    learning: bool = False


class ConnectionDocument(_Model):
    """A connection from the error neurons of `source` to those of `target`."""

    source: Line
    target: Line
    feedback: FeedbackDocument


class RegionDocument(_Model):
    """How one region learns."""

    name: Line
    rule: Line
    error_neurons: bool = True
    device: Line | None = None


class PlanDocument(_Model):
    """A wiring plan; regions in the order of the forward pass, connections in the order of sending."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True, title="altprop wiring plan")

    schema_: Literal["altprop/wiring-plan"] = Field(alias="schema")
    version: Literal[1]
    name: Line = "custom"
    regions: list[RegionDocument]
    connections: list[ConnectionDocument]


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of plan files."""
    return PlanDocument.model_json_schema(by_alias=True)


def to_document(plan: WiringPlan) -> dict[str, Any]:
    """Returns the document of a plan.

    Raises:
        PlanError: a name or an option has no form in a file; the key is named.
    """
    document = {
        "schema": SCHEMA,
        "version": VERSION,
        "name": plan.name,
        "regions": [
            {"name": r.name, "rule": r.rule, "error_neurons": r.error_neurons, "device": r.device} for r in plan.regions
        ],
        "connections": [
            {"source": c.source, "target": c.target, "feedback": _feedback(c.feedback)} for c in plan.connections
        ],
    }
    _check(document, "the wiring plan")
    return document


def _feedback(feedback: Feedback) -> dict[str, Any]:
    return {"kind": feedback.kind, "options": dict(feedback.options), "learning": feedback.learning}


def from_document(document: Any, where: str) -> WiringPlan:
    """Builds the plan that a document describes.

    Args:
        document: plain dicts and lists.
        where: name of the file, for messages.

    Raises:
        PlanError: the version is unknown, or keys are unknown, missing or of a wrong type; all are named.
    """
    if not isinstance(document, Mapping):
        raise PlanError(f"{where}: a wiring plan is an object with keys, not {_kind(document)}.")
    check_version(document.get("schema"), document.get("version"), where)
    checked = _check(document, where)
    regions = tuple(RegionPlan(r.name, r.rule, r.error_neurons, r.device) for r in checked.regions)
    connections = tuple(
        Connection(c.source, c.target, Feedback(c.feedback.kind, c.feedback.options, c.feedback.learning))
        for c in checked.connections
    )
    return WiringPlan(regions, connections, checked.name)


def check_version(schema: Any, version: Any, where: str) -> None:
    """Refuses files of another kind or version.

    Raises:
        PlanError: says which one it is and which one can be read.
    """
    if schema != SCHEMA:
        found = "no key schema" if schema is None else f"schema {shown(schema)}"
        raise PlanError(f'{where}: {found}; a wiring plan has schema "{SCHEMA}".')
    if isinstance(version, bool) or version != VERSION:
        found = "no version" if version is None else f"version {shown(version)}"
        raise PlanError(f"{where}: {found}; this altprop reads version {VERSION} of wiring plans.")


def _check(document: Mapping[str, Any], where: str) -> PlanDocument:
    try:
        return PlanDocument.model_validate(document)
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors(include_url=False)]
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise PlanError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}.") from error


def _problem(error: ErrorDetails) -> str:
    key = _path(error["loc"])
    messages = {"missing": "is missing", "extra_forbidden": "there is no such key"}
    if error["type"] == "value_error":
        return f"{key}: {str(error['ctx']['error']).removesuffix('.')}"
    said = messages.get(error["type"])
    return f"{key}: {said}" if said else f"{key}: {error['msg'].lower()}, not {_kind(error['input'])}"


def _path(location: tuple[int | str, ...]) -> str:
    """`("connections", 3, "feedback", "kind")` as `connections[3].feedback.kind`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in location)
    return text.removeprefix(".")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", type(None): "null", str: f"the text {shown(value)}"}
    return names.get(type(value), shown(value))
