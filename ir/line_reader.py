"""Reads texts of ours: the first line says of what and which version; blank lines and remarks say nothing."""

import re
from collections.abc import Iterator
from typing import ClassVar

from altprop.ir.json_document import cut_short, shown


class LineReader:
    """Reads one text; knows the number of the line it is at.

    Attributes:
        kind: what the text is of, such as "plan".
        many: the same of several, for messages.
        version: the version that is read.
        failure: what is raised where a line cannot be read.
    """

    kind: ClassVar[str]
    many: ClassVar[str]
    version: ClassVar[int]
    failure: ClassVar[type[Exception]]

    def __init__(self, where: str) -> None:
        """Takes the name of the file, for messages."""
        self.where = where
        self.number = 0

    def lines(self, text: str) -> Iterator[str]:
        """Yields what stands behind the line with the version, without margins.

        Raises:
            Exception: of the kind `failure`, where that line is missing or of another version.
        """
        seen = False
        for self.number, whole in enumerate(text.split("\n"), start=1):
            line = whole.strip()
            if not line or line.startswith("#"):
                continue
            if seen:
                yield line
            else:
                self._check_version(line)
            seen = True
        if not seen:
            raise self.error(self._begins)

    def error(self, problem: str) -> Exception:
        """Returns what to raise for the line that was read last."""
        return self.failure(f"{self.where}, line {self.number}: {cut_short(problem)}.")

    @property
    def _begins(self) -> str:
        return f'a {self.kind} begins with the line "altprop {self.kind} {self.version}"'

    def _check_version(self, line: str) -> None:
        match = re.fullmatch(rf"altprop {self.kind} (\S+)", line)
        if match is None:
            raise self.error(f"{self._begins}, not with {shown(line)}")
        if match[1] != str(self.version):
            raise self.error(f"version {match[1][:20]}; this altprop reads version {self.version} of {self.many}")
