"""Runs every rule on every model of the zoo in onnxruntime beside torch, and writes the table into docs/onnx.md.

python docs/write_sessions.py                 # goes on where it stopped; hours in all
python docs/write_sessions.py --minutes 30    # as far as it comes
python docs/write_sessions.py --minutes 0     # the table alone
"""

import argparse
import sys
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
    words = parser.parse_args()
    from conftest import register_torchvision_operators

    register_torchvision_operators()
    import timing
    from session_grid import BAD, RULES, ZOO, fill, load, table

    for line in fill(KEPT, words.models or list(ZOO), words.rules or RULES, 60 * words.minutes):
        print(line, flush=True)
    outcomes = load(KEPT)
    timing.replace_section(ROOT / "docs" / "onnx.md", "sessions", table(outcomes))
    bad = sorted(key for key, outcome in outcomes.items() if outcome.startswith(BAD))
    print(f"{len(outcomes)} of {len(ZOO) * len(RULES)} cells have run; {len(bad)} differ: {', '.join(bad) or 'none'}")


if __name__ == "__main__":
    main()
