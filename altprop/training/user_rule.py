"""The caller's own rule, named as `file.py:Name`, with options as `file.py:Name(option=value)`."""

import re
from pathlib import Path
from typing import Any

from altprop.models import ModelError
from altprop.rules.base import RULES, Rule
from altprop.training.user_model import import_file

_FORM = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)(?P<options>\(.*\))?", re.DOTALL)


def known_rule(text: Any) -> Any:
    """Imports the file that a rule's text names, and returns the text by which the rule is known from then on.

    Args:
        text: `"my_rule.py:MyRule(beta=0.1)"`; a mapping from globs to such texts; whatever else is returned as it is.

    Raises:
        ModelError: there is no such file, it fails, or it has no such rule; or a file is named without a rule.
    """
    if isinstance(text, dict):
        return {glob: known_rule(one) for glob, one in text.items()}
    if isinstance(text, str) and text.endswith((".py", ".py:")):
        raise ModelError(f"name the rule's class too: {text.rstrip(':')}:Name")
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return text
    module = import_file(Path(match["file"]).expanduser(), "rule")
    found = getattr(module, match["name"], None)
    if not (isinstance(found, type) and issubclass(found, Rule)):
        raise ModelError(f"{match['file']} has no rule '{match['name']}'; it has {_rules_in(module)}")
    name = found.about.name
    if RULES.get(name) is not found:
        raise ModelError(f"{text}: give the rule a name of its own: about = About(name='{match['name'].lower()}')")
    return f"{name}{match['options'] or ''}"


def _rules_in(module: Any) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == module.__name__
    ]
    return ", ".join(own) or "no subclass of altprop.rules.Rule"
