"""Finds the user's own line in what torch says, and in errors."""

import linecache
import re
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path

import torch

_LIBRARIES = tuple(f"{Path(place)}/" for place in (Path(torch.__file__).parent, Path(__file__).parents[1]))
_STANDARD = f"{sysconfig.get_paths()['stdlib']}/"


def place_in_text(text: str) -> str:
    """Returns " at file:line", with its code, of the innermost line of a stack in text that is the user's; else ""."""
    found = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)', text)
    users = [item for item in found if is_users(item[0])]
    return f' at {users[-1][0]}:{users[-1][1]} ("{users[-1][2].strip()}")' if users else ""


def place_of(error: BaseException) -> str:
    """Returns " at file:line", with its code, of the innermost line that ran in an error and is the user's; else ""."""
    users = [(frame, line) for frame, line in frames_of(error) if is_users(frame.f_code.co_filename)]
    if not users:
        return ""
    name, line = users[-1][0].f_code.co_filename, users[-1][1]
    return f' at {name}:{line} ("{linecache.getline(name, line).strip()}")'


def frames_of(error: BaseException | None) -> Iterator[tuple[types.FrameType, int]]:
    """Frames of an error's causes first, then its own, outermost first."""
    seen: set[int] = set()
    chain = []
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        chain.append(error)
        error = error.__cause__ or error.__context__
    for one in chain:
        trace = one.__traceback__
        while trace is not None:
            yield trace.tb_frame, trace.tb_lineno
            trace = trace.tb_next


def is_users(filename: str) -> bool:
    """Whether a file is neither torch's, nor Python's, nor altprop's."""
    standard = filename.startswith(_STANDARD) and "site-packages" not in filename
    return not (filename.startswith(("<", *_LIBRARIES)) or standard)
