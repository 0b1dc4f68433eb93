"""The tables of step files: whether an engine trains as torch does, sizes, times and memory, in Markdown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from step_nets import NETS

EQUAL = 1e-5
MAGNIFIED = 10  # times as far as a change of the last bit goes in torch
ALIKE = 15  # steps that are equal each by itself
RULES = ("dfa", "drtp", "reclra", "dkp", "local_loss", "fa")
ARENA_RULES = ("dfa", "drtp", "local_loss", "bp")
OPTIMIZERS = ("SGD", "momentum", "Adam", "Muon")
IN_TABLE = ("onnxruntime", "ExecuTorch", "XNNPACK")
OTHER = "torch.export"  # an engine with a short table of its own


def equal(row: Mapping[str, Any], engine: str) -> str:
    """Whether an engine did as torch."""
    found = row.get(engine)
    if found is None or "refused" in found:
        return "–" if found is None else "refused"
    gap = found["difference"]
    if gap <= EQUAL:
        return "equal"
    exact = found.get("float64", {}).get("difference", np.inf)
    if exact <= EQUAL:
        return f"rounding grows to {gap:.0e}; float64: {exact:.0e}"
    drifted = row["torch"].get("drift", 0.0)
    if gap <= MAGNIFIED * drifted:
        return f"rounding grows to {gap:.0e}; torch: {drifted:.0e}"
    steps = found.get("alike", 0)
    return f"rounding grows to {gap:.0e}; steps: {steps}" if steps >= ALIKE else f"**off by** {gap:.0e}"


def table(rows: Mapping[str, Any]) -> str:
    """The table of nets by rules by engines, and the sentences of what was refused."""
    heads = ["net", "rule, optimizer", *IN_TABLE, ".onnx / .pte / with XNNPACK, kB"]
    heads += [f"torch / {' / '.join(IN_TABLE)}, ms", "states, kB", f"torch / {' / '.join(IN_TABLE)}, memory, kB"]
    lines, refusals = [heads, ["---"] * len(heads)], []
    for key in sorted(rows, key=order):
        row, (name, rule, optimizer) = rows[key], key.split(", ")
        start = [name, f"{rule}, {optimizer}"]
        if "refused" in row:
            refusals.append(f"{name}, {rule}: {row['refused']}")
            lines.append([*start, f"refused ({len(refusals)})", *[""] * (len(heads) - 3)])
            continue
        words = []
        for engine in IN_TABLE:
            word = equal(row, engine)
            if word == "refused":
                refusals.append(f"{name}, {rule}, {engine}: {row[engine]['refused']}")
                word = f"refused ({len(refusals)})"
            words.append(word)
        lines.append([*start, *words, *_figures(row)])
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*text, "", *(f"{number}. {note}" for number, note in enumerate(refusals, start=1))]).rstrip()


def _figures(row: Mapping[str, Any]) -> list[str]:
    """Sizes, times, the size of the states, and memory; where one is not measured for some engine, a dash."""
    found = {one: row.get(one, {}) for one in ("torch", *IN_TABLE)}
    sizes = " / ".join(kilobytes(found[one].get("bytes")) for one in IN_TABLE)
    times = " / ".join(f"{one['ms']:.2g}" if "ms" in one else "–" for one in found.values())
    memory = " / ".join(kilobytes(one.get("arena", one.get("memory"))) for one in found.values())
    return [sizes, times, kilobytes(row["torch"]["states"]), memory]


def other_table(rows: Mapping[str, Any]) -> str:
    """The table of the same steps in torch alone, of the rows that it was measured for."""
    lines = [f"| net | rule, optimizer | {OTHER} | .pt2, kB | torch, ms | {OTHER}, ms |", "| --- |" + " --- |" * 5]
    for key in sorted(rows, key=order):
        row, (name, rule, optimizer) = rows[key], key.split(", ")
        if "ms" in (found := row.get(OTHER, {})):
            figures = f"{kilobytes(found['bytes'])} | {row['torch']['ms']:.2g} | {found['ms']:.2g}"
            lines.append(f"| {name} | {rule}, {optimizer} | {equal(row, OTHER)} | {figures} |")
    return "\n".join(lines)


def order(key: str) -> tuple[int, ...]:
    """Where a row stands: by net, rule, and optimizer or batch."""
    name, rule, last = key.split(", ")
    rules = list(dict.fromkeys((*RULES, *ARENA_RULES)))
    final = OPTIMIZERS.index(last) if last in OPTIMIZERS else int(last)
    return list(NETS).index(name), rules.index(rule), final


def kilobytes(count: int | None) -> str:
    """A number of bytes in kB."""
    return "–" if count is None else f"{count / 1000:.0f}" if count >= 10_000 else f"{count / 1000:.1f}"


def arena_table(rows: Mapping[str, Any]) -> str:
    """The table of arenas: a line a net and batch, a column a rule."""
    lines = [
        f"| net | batch | {' | '.join(rule if rule != 'bp' else 'backprop' for rule in ARENA_RULES)} |",
        f"| --- | --- |{' --- |' * len(ARENA_RULES)}",
    ]
    pairs = list(dict.fromkeys((key.split(", ")[0], key.split(", ")[2]) for key in sorted(rows, key=order)))
    for name, batch in pairs:
        found = [rows.get(f"{name}, {rule}, {batch}", {}) for rule in ARENA_RULES]
        words = [kilobytes(one["arena"]) if "arena" in one else "refused" if one else "–" for one in found]
        lines.append(f"| {name} | {batch} | {' | '.join(words)} |")
    return "\n".join(lines)


def where_table(rows: Mapping[str, Any]) -> str:
    """Which operator runs where with XNNPACK, over all rows, how often."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows.values():
        for where, operators in row.get("XNNPACK", {}).get("operators", {}).items():
            for operator, count in operators.items():
                place = counts.setdefault(operator.partition("::")[2].partition(".")[0], {})
                place[where] = place.get(where, 0) + count
    engines = sorted({where for found in counts.values() for where in found})
    lines = [f"| operator | {' | '.join(engines)} |", f"| --- |{' --- |' * len(engines)}"]
    lines += [f"| {one} | {' | '.join(str(f.get(e, '')) for e in engines)} |" for one, f in sorted(counts.items())]
    return "\n".join(lines)
