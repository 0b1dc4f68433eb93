"""The section of `docs/coverage.md` on suites that others wrote, from the outcomes that `tests/run_suites.py` keeps."""

import json
import re
from collections import Counter
from pathlib import Path

HEAD = """## Suites that others wrote

Written from `benchmarks/results/suites.jsonl`, which `python tests/run_suites.py` fills and can go on with. *operators*
is torch's own database of operators (OpInfo, its differentiable entries in float64), *modules* that of its modules, in
training and in evaluation mode. Each sample with a batch stands behind a layer of weights; one step by `bp` is compared
with autograd. A sample applies if torch differentiates it and its gradient is neither zero nor infinite. *Equal* is to
1e-9; *refused* with a sentence of altprop's; *listed* samples differ for a reason that is given below.

| suite | entries | samples | apply | equal | refused | listed | differ or fail | equal of those that apply |
|---|---|---|---|---|---|---|---|---|"""
NOTHING = ("no batch", "no gradient", "no finite gradient", "torch itself fails")


def section(path: Path, reasons: dict[str, str]) -> str:
    """Returns the section; empty where nothing was kept.

    Args:
        path: of the outcomes.
        reasons: why some entries need not equal autograd, by name.
    """
    if not path.exists():
        return ""
    found = {
        (one["suite"], one["case"]): one["outcome"] for one in map(json.loads, path.read_text("utf-8").splitlines())
    }
    lines, sentences, others = [HEAD], Counter[str](), list[str]()
    for suite in dict.fromkeys(suite for suite, _ in found):
        own = {case: outcome for (one, case), outcome in found.items() if one == suite}
        apply = {case: outcome for case, outcome in own.items() if not outcome.startswith(NOTHING)}
        kinds = Counter(_kind(case, outcome, reasons) for case, outcome in apply.items())
        entries = len({case.partition("#")[0] for case in own})
        share = f"{100 * kinds['equal'] / max(1, len(apply)):.1f} %"
        counts = (kinds[kind] for kind in ("equal", "refused", "listed", "other"))
        lines.append(f"| {' | '.join(map(str, (suite, entries, len(own), len(apply), *counts, share)))} |")
        sentences.update(_plain(o) for o in apply.values() if o.startswith("refused"))
        others += [f"{case}: {o}" for case, o in apply.items() if _kind(case, o, reasons) == "other"]
    lines += ["", "Refusals, by sentence:", ""]
    lines += [f"- {count} x {sentence}" for sentence, count in sentences.most_common()]
    lines += ["", "Listed:", ""] + [f"- `{name}`: {why}." for name, why in reasons.items()]
    lines += ["", "Differ or fail:", "", *(f"- {one}" for one in others)] if others else []
    return "\n".join(lines) + "\n"


def _kind(case: str, outcome: str, reasons: dict[str, str]) -> str:
    if outcome == "equal" or outcome.startswith("refused"):
        return outcome.partition(":")[0]
    return "listed" if case.partition("#")[0] in reasons else "other"


def _plain(outcome: str) -> str:
    """A refusal without the names of one model."""
    text = outcome.removeprefix("refused: ")
    text = re.sub(r' at \S+:\d+ \(".*?"\)', "", text)
    return re.sub(r"\d+", "#", text)
