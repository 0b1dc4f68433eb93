"""Runs every rule on every model of the zoo in onnxruntime beside torch, and writes the table into docs/onnx.md.

python docs/write_sessions.py                 # goes on where it stopped; hours in all
python docs/write_sessions.py --minutes 30    # as far as it comes
python docs/write_sessions.py --minutes 0     # the table alone
python docs/write_sessions.py --again refused # instead: cells that were refused, anew
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
KEPT = ROOT / "benchmarks" / "results" / "sessions.json"


def main() -> None:
    """Runs cells, writes the table, says how much has run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--rules", nargs="+")
    parser.add_argument("--again", default="", help="run the cells anew whose outcome begins so, and no others")
    words = parser.parse_args()
    from conftest import register_torchvision_operators

    register_torchvision_operators()
    import timing
    from session_grid import BAD, RULES, ZOO, fill, load, processors, ran, table

    models, rules, known = words.models or list(ZOO), words.rules or list(RULES), load(KEPT)
    cells = [(name, rule) for name in models for rule in rules]
    if words.again:
        cells = [pair for pair in cells if known.get(" ".join(pair), "").startswith(words.again)]
    where, end = timing.machine()["processor"], time.monotonic() + 60 * words.minutes
    for name, rule in cells:
        left = end - time.monotonic()
        for line in fill(KEPT, [name], [rule], left, processor=where, again=words.again or BAD):
            print(line, flush=True)
    outcomes = load(KEPT)
    text = f"Run on {' and '.join(processors(KEPT))}. {ran(outcomes)}\n\n{table(outcomes)}"
    timing.replace_section(ROOT / "docs" / "onnx.md", "sessions", text)
    bad = sorted(key for key, outcome in outcomes.items() if outcome.startswith(BAD))
    print(f"{len(outcomes)} of {len(ZOO) * len(RULES)} cells have run; {len(bad)} differ: {', '.join(bad) or 'none'}")


if __name__ == "__main__":
    main()
