"""Refuses globs over region names that match nothing: what was asked for would be left undone without a word."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from altprop.ir.captured_graph import CapturedGraph
from altprop.ir.errors import RuleError
from altprop.ir.region import Region
from altprop.rules.base import Rule


def check_globs(rules: Mapping[str, Rule | None], regions: Sequence[Region], captured: CapturedGraph) -> None:
    """Checks the globs that rules are given by, and those in the options of these rules.

    Args:
        rules: rules by glob.
        regions: all regions.
        captured: the forward graph; modules whose parameters are frozen count as regions, since they may thaw.

    Raises:
        RuleError: names the glob, and the regions with the nearest names.
    """
    names = [region.name for region in regions]
    frozen = [name.rpartition(".")[0] for name in captured.parameters.values() if name not in captured.trainable]
    _check(rules, names, frozen, "rule")
    dead = list(rules)[list(rules).index("*") + 1 :] if "*" in rules else []
    if dead:
        raise RuleError(f'rule: "{dead[0]}" stands behind "*", which takes every region: write "*" last.')
    for rule in filter(None, rules.values()):
        for option, globs in rule.wiring.globs(rule).items():
            _check(globs, names, frozen, f"{rule.about.name}({option}=...)")


def _check(globs: Iterable[str], names: Sequence[str], frozen: Sequence[str], where: str) -> None:
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in (*names, *frozen)):
            raise RuleError(f'{where}: no region matches "{glob}". {_nearest(glob, names)}')


def _nearest(glob: str, names: Sequence[str], limit: int = 6) -> str:
    """The regions whose names are near a glob's, or the first of all where there are no such."""
    text = glob.strip("*.?")
    inside = [name for name in names if text and (name in text or text in name)]
    near = list(dict.fromkeys([*inside, *difflib.get_close_matches(text, names, n=limit)]))
    shown = [f'"{name}"' for name in (near or names)[:limit]]
    rest = "" if near or len(names) <= limit else f" and {len(names) - limit} more"
    return f"{'The nearest' if near else 'The regions'} are {', '.join(shown)}{rest}."
