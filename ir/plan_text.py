"""Wiring plans as text.

The grammar, line by line; the version comes first, the rest in any order; blank lines and lines that start
with `#` do not count:

    altprop plan 1
    plan direct
    region fc1: reclra(beta=0.1)
    region fc2: frozen; no error neurons; device cuda:0
    fc3 -> fc1: dense(distribution="normal", scale=1.0) learned

Regions stand in the order of the forward pass, connections in the order in which errors are sent. A name or
rule that would be read otherwise stands in double quotes, as a JSON text. Values of options are JSON.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from altprop.ir.errors import PlanError
from altprop.ir.json_document import JsonReader, is_unicode, shown
from altprop.ir.line_reader import LineReader
from altprop.ir.plan import VERSION, Connection, Feedback, RegionPlan, WiringPlan
from altprop.ir.plan_schema import json_text, printable, to_document

_QUOTED = r'"(?:[^"\\]|\\.)*"'
# Words with spaces between them, never behind them: so there is one way to read a line, and one look at each character.
_BARE = r"[^\s\":;>()#][^\":;> ]*(?: +[^\":;> ]+)*"
_NAME = rf"{_QUOTED}|{_BARE}"
_RULE = r"[^\s\";][^; ]*(?: +[^; ]+)*"
_KIND = r"[^\s\"(]+"
_DEVICE = r"[^\s\";]+"
_PLAN = re.compile(rf"plan +({_QUOTED}|\S.*)")
_REGION = re.compile(
    rf"region +({_NAME}) *: *({_QUOTED}|{_RULE}) *"
    rf"(; *no error neurons *)?(?:; *device +({_QUOTED}|{_DEVICE}) *)?"
)
_CONNECTION = re.compile(rf"({_NAME}) *-> *({_NAME}) *: *({_QUOTED}|{_KIND}) *(?:\((.*)\) *)?(learned|fixed)?")
_OPTION_KEY = re.compile(rf"\s*({_QUOTED}|\w+)\s*=\s*")
_KEYWORDS = ("altprop ", "plan ", "region ")


def format_plan(plan: WiringPlan) -> str:
    """Returns the text of a plan; `parse_plan` gives the plan back.

    Raises:
        PlanError: a name or an option has no form in a file.
    """
    to_document(plan)
    name = _quote_unless(not plan.name.startswith('"'), plan.name)
    lines = [f"altprop plan {VERSION}", f"plan {name}"]
    lines += [_region_line(region) for region in plan.regions]
    lines += [format_connection(connection) for connection in plan.connections]
    return "\n".join(lines)


def _region_line(region: RegionPlan) -> str:
    rule = _quote_unless(re.fullmatch(_RULE, region.rule), region.rule)
    parts = [f"region {_name(region.name)}: {rule}"]
    if not region.error_neurons:
        parts.append("no error neurons")
    if region.device is not None:
        parts.append(f"device {_quote_unless(re.fullmatch(_DEVICE, region.device), region.device)}")
    return "; ".join(parts)


def format_connection(c: Connection) -> str:
    """Returns the line of one connection."""
    kind = _quote_unless(re.fullmatch(_KIND, c.feedback.kind), c.feedback.kind)
    options = ", ".join(f"{_option_key(k)}={json_text(v)}" for k, v in c.feedback.options.items())
    tail = f"({options})" if options else ""
    learning = "learned" if c.feedback.learning else "fixed"
    return f"{_name(c.source)} -> {_name(c.target)}: {kind}{tail} {learning}"


def _name(name: str) -> str:
    safe = re.fullmatch(_BARE, name) and not name.endswith("-") and not f"{name} ".startswith(_KEYWORDS)
    return _quote_unless(safe, name)


def _option_key(key: str) -> str:
    return _quote_unless(re.fullmatch(r"\w+", key), key)


def _quote_unless(safe: object, text: str) -> str:
    return text if safe else json.dumps(text)


def parse_plan(text: str, where: str = "plan text") -> WiringPlan:
    """Builds the plan that a text describes.

    Args:
        text: as `format_plan` writes it.
        where: name of the file, for messages.

    Raises:
        PlanError: names the line that cannot be read.
    """
    return _Parser(where).parse(text)


class _Parser(LineReader):
    """Reads one text."""

    kind, many, version, failure = "plan", "wiring plans", VERSION, PlanError

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.name: str | None = None
        self.regions: list[RegionPlan] = []
        self.connections: list[Connection] = []

    def parse(self, text: str) -> WiringPlan:
        for line in self.lines(text):
            self._line(line)
        return WiringPlan(tuple(self.regions), tuple(self.connections), self.name or "custom")

    def _line(self, line: str) -> None:
        forms = {"region": (_REGION, self._region), "plan": (_PLAN, self._plan)}
        pattern, use = forms.get(line.split()[0], (_CONNECTION, self._connection))
        match = pattern.fullmatch(line)
        if match is not None:
            use(match)
            return
        raise self.error(
            f"{shown(line)} does not read as a region (region NAME: RULE) "
            "or as a connection (SOURCE -> TARGET: KIND(OPTION=VALUE) learned)"
        )

    def _plan(self, match: re.Match[str]) -> None:
        if self.name is not None:
            raise self.error("the name of the plan stands twice")
        self.name = self._text(match[1])

    def _region(self, match: re.Match[str]) -> None:
        device = None if match[4] is None else self._text(match[4])
        self.regions.append(RegionPlan(self._text(match[1]), self._text(match[2]), match[3] is None, device))

    def _connection(self, match: re.Match[str]) -> None:
        feedback = Feedback(self._text(match[3]), self._options(match[4] or ""), match[5] == "learned")
        self.connections.append(Connection(self._text(match[1]), self._text(match[2]), feedback))

    def _text(self, token: str) -> str:
        return self._try(lambda: printable(json.loads(token) if token.startswith('"') else token.strip()), token)

    def _options(self, text: str) -> Mapping[str, Any]:
        reader, options, place = JsonReader(text, f"{self.where}, line {self.number}", PlanError), {}, 0
        end = len(text.rstrip())
        while place < end:
            match = _OPTION_KEY.match(text, place)
            if match is None:
                raise self.error(f"options are written name=value, not {shown(text[place:])}")
            key = self._key(match[1])
            if key in options:
                raise self.error(f"the option {shown(key)} stands twice")
            options[key], place = reader.value_at(
                match.end(), f"the value of {shown(key)} in {text[match.end() : match.end() + 60]}"
            )
            place = self._behind_comma(text, place, end, key)
        return options

    def _key(self, token: str) -> str:
        """The name of an option: any text of Unicode."""
        key: str = self._try(lambda: json.loads(token) if token.startswith('"') else token, token)
        if not is_unicode(key):
            raise self.error(f"the text {shown(key)} has half of a character")
        return key

    def _behind_comma(self, text: str, place: int, end: int, key: str) -> int:
        """Where the next option begins, behind a value and its comma."""
        while place < end and text[place].isspace():
            place += 1
        if place < end and (text[place] != "," or place + 1 == end):
            raise self.error(f"options are separated by commas: after {shown(key)} comes {shown(text[place:])}")
        return place + 1

    def _try(self, read: Callable[[], Any], token: str) -> Any:
        try:
            return read()
        except json.JSONDecodeError as error:
            raise self.error(f"{shown(token)} is not JSON: {error.msg}") from error
        except ValueError as error:
            raise self.error(str(error)) from error
