"""The section of `docs/coverage.md` on suites that others wrote, from the outcomes that `tests/run_suites.py` keeps."""

import re
from collections import Counter
from collections.abc import Sequence

from suite_records import NOT_RUN, Entry

HEAD = """## Suites that others wrote

Written from `benchmarks/results/suites.jsonl`, which `python tests/run_suites.py` fills and can go on with.

* *operators*: torch's own database of operators (OpInfo), its differentiable entries in float64. Each sample with a
  batch stands behind a layer of weights; what it writes into is a buffer.
* *modules*: torch's own database of modules, in training and in evaluation mode, in the same way.
* *models*: random models of NNSmith (`tests/suite_models.py`).
* *models, silent*: the same under `dfa` with all feedback zero; *equal* says that nothing moves that `explain` gives to
  dfa. Models of which dfa trains nothing do not apply.

One step by `bp` is compared with autograd, through all real outputs. A sample applies if torch differentiates it and
its gradient is neither zero nor infinite. *Equal* is to 1e-9; *refused* is in a sentence of altprop's, without words of
torch; *listed* samples differ for a reason that is given below. Samples with one size of the batch are compiled
together, as one model; where that does not equal autograd, each by itself. *Begun*: entries with samples not run yet.

| suite | entries | begun | samples | apply | equal | refused | listed | differ or fail | equal of apply |
|---|---|---|---|---|---|---|---|---|---|"""
NO_BATCH = "no batch"
NOTHING = ("no gradient", "no finite gradient", "torch itself fails")


def section(entries: Sequence[Entry], reasons: dict[str, str]) -> str:
    """Returns the section; empty where nothing was kept.

    Args:
        entries: what was kept.
        reasons: why some entries need not equal autograd, by name.
    """
    if not entries:
        return ""
    lines, sentences, others = [HEAD], Counter[str](), list[str]()
    for suite in dict.fromkeys(entry.suite for entry in entries):
        own = [
            (entry.name, number, one) for entry in entries if entry.suite == suite for number, one in entry.samples()
        ]
        ran = [sample for sample in own if sample[2] not in (NO_BATCH, NOT_RUN)]
        apply = [sample for sample in ran if not sample[2].startswith(NOTHING)]
        kinds = Counter(_kind(name, outcome, reasons) for name, _, outcome in apply)
        left = len({name for name, _, outcome in own if outcome == NOT_RUN})
        names = len({name for name, _, _ in own})
        share = f"{100 * kinds['equal'] / max(1, len(apply)):.1f} %"
        counts = (f"{kinds[kind]:,}" for kind in ("equal", "refused", "listed", "other"))
        cells = (suite, names, left, f"{len(ran):,}", f"{len(apply):,}", *counts, share)
        lines.append(f"| {' | '.join(map(str, cells))} |")
        sentences.update(_plain(outcome) for _, _, outcome in apply if outcome.startswith("refused"))
        bad = (sample for sample in apply if _kind(sample[0], sample[2], reasons) == "other")
        others += [f"{name}#{number}: {outcome}" for name, number, outcome in bad]
    lines += ["", "Refusals, by sentence:", ""]
    lines += [f"- {count} x {sentence}" for sentence, count in sentences.most_common()]
    lines += ["", "Listed:", ""] + [f"- `{name}`: {why}." for name, why in reasons.items()]
    lines += ["", "Differ or fail:", "", *(f"- {one}" for one in others)] if others else []
    return "\n".join(lines) + "\n"


def _kind(name: str, outcome: str, reasons: dict[str, str]) -> str:
    if outcome == "equal" or outcome.startswith("refused"):
        return outcome.partition(":")[0]
    return "listed" if name in reasons else "other"


def _plain(outcome: str) -> str:
    """A refusal without the names of one model."""
    text = outcome.removeprefix("refused: ")
    text = re.sub(r' at \S+:\d+ \(".*?"\)', "", text)
    return re.sub(r"\d+", "#", text)
