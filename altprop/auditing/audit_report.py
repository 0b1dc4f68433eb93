"""What an audit says: a row a region, a line a check, and a verdict."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class RegionRow:
    """One region behind training; where gradients are gone by then, behind the first quarter of it.

    Attributes:
        region: its name.
        growth: root mean square of its activity, relative to what it was before training.
        gradient: norm of the true gradient of its parameters.
        floor: what chance alone would leave of that norm, told from the two halves of the batch.
        angle: between update and gradient in degrees; NaN where the gradient is not above its floor.
        error_rank: effective rank of its errors.
        update_rank: effective rank of its update.
        gradient_rank: effective rank of the gradient.
    """

    region: str
    growth: float
    gradient: float
    floor: float
    angle: float
    error_rank: float
    update_rank: float
    gradient_rank: float


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: its name.
        passed: None where it could not be made.
        value: what was found.
        limit: what it is compared with.
        reason: in a sentence.
    """

    check: str
    passed: bool | None
    value: float
    limit: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """A verdict on a rule, and what it rests on.

    Attributes:
        rule: as text.
        measure: what scores are: "accuracy" in per cent, or "loss".
        scores: on the test data, of the rule and of the controls; NaN for one that could not be made.
        regions: a row each, in forward order.
        findings: the checks.
    """

    rule: str
    measure: str
    scores: dict[str, float]
    regions: tuple[RegionRow, ...]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(finding.passed is not False for finding in self.findings)

    @property
    def verdict(self) -> str:
        """PASS or FAIL."""
        return "PASS" if self.passed else "FAIL"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; what is no number is None."""
        return {"verdict": self.verdict, **_plain(dataclasses.asdict(self))}

    def to_json(self, path: str | Path) -> Path:
        """Writes a file; returns its path."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return path

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items() if not math.isnan(value))
        checks = [["check", "", "found", "limit", "reason"]]
        words = {True: "pass", False: "FAIL", None: "-"}
        checks += [[f.check, words[f.passed], _number(f.value, 4), f"{f.limit:.4g}", f.reason] for f in self.findings]
        rows = [[field.name for field in dataclasses.fields(RegionRow)]]
        for row in self.regions:
            rows.append([one if isinstance(one, str) else _number(one, 3) for one in dataclasses.astuple(row)])
        head = f"{self.verdict}: {self.rule}; {self.measure}: {scores}"
        return "\n\n".join([head, _table(checks), _table(rows)])


def _number(value: float, digits: int) -> str:
    """As the tables have it: a line where there is no number."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _table(lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
