"""Plan files: the suffix says whether a plan is written as JSON, GraphML or text."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from altprop.ir.errors import PlanError
from altprop.ir.json_document import parse_json
from altprop.ir.plan import WiringPlan
from altprop.ir.plan_graphml import format_graphml, parse_graphml
from altprop.ir.plan_schema import from_document, to_document
from altprop.ir.plan_text import format_plan, parse_plan


def save_plan(plan: WiringPlan, path: Path) -> None:
    """Writes a plan; the suffix chooses the format.

    Raises:
        PlanError: unknown suffix, a folder that does not exist, or a name that has no form in a file.
    """
    text = _FORMATS[_suffix(path)][0](plan)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise PlanError(f"{path}: cannot be written: {error.strerror or error}.") from error


def load_plan(path: Path) -> WiringPlan:
    """Reads a plan; the suffix says the format.

    Raises:
        PlanError: unknown suffix, no such file, or a file that is no plan; the line or key is named.
    """
    parse = _FORMATS[_suffix(path)][1]
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise PlanError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: byte {error.start} is not UTF-8.") from error
    return parse(text, str(path))


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise PlanError(f'{path}: a plan file ends in {", ".join(_FORMATS)}, not in "{path.suffix}".')
    return suffix


def _format_json(plan: WiringPlan) -> str:
    return json.dumps(to_document(plan), indent=2) + "\n"


def _parse_json(text: str, where: str) -> WiringPlan:
    return from_document(parse_json(text, where, PlanError), where)


_FORMATS: Mapping[str, tuple[Callable[[WiringPlan], str], Callable[[str, str], WiringPlan]]] = {
    ".json": (_format_json, _parse_json),
    ".graphml": (format_graphml, parse_graphml),
    ".txt": (lambda plan: format_plan(plan) + "\n", parse_plan),
}
