"""Finds the user's own line in what torch says."""

import re
from pathlib import Path

import torch


def place_in_text(text: str) -> str:
    """Returns " at file:line", with its code, of the innermost line of a stack in text that is the user's; else ""."""
    found = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*(.+)', text)
    users = [item for item in found if is_users(item[0])]
    return f' at {users[-1][0]}:{users[-1][1]} ("{users[-1][2].strip()}")' if users else ""


def is_users(filename: str) -> bool:
    """Whether a file is neither torch's, nor Python's, nor altprop's."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    library = f"{Path(__file__).parent.parent}"
    own = any(filename.startswith(f"{library}/{folder}/") for folder in ("runtime", "altprop", "passes", "compiler"))
    standard = "/lib/python3" in filename and "site-packages" not in filename
    return not (filename.startswith(inside) or filename.startswith("<") or own or standard)
