"""Runs benchmarks, writes their results, says which figures lost ground, and writes the pages' sections from them.

python -m benchmarks list
python -m benchmarks run steps optimizers
python -m benchmarks run steps --only "GPT*" --rounds 5
python -m benchmarks run steps --out elsewhere
python -m benchmarks page
"""

import argparse
import dataclasses
import fnmatch
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from benchmarks.form import Result, differences, load, lost_ground, merge, read, save
from benchmarks.registry import BENCHMARKS, SCRIPTS, Benchmark

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def run(name: str, only: str, rounds: int, *, compiled: bool, remark: str) -> Result:
    """Runs one benchmark of the one form.

    Args:
        name: its name.
        only: a glob over its rows.
        rounds: how often each figure is taken.
        compiled: whether compiled autograd is timed too.
        remark: what to say of the circumstances.
    """
    rows = [row for row in BENCHMARKS[name].names if fnmatch.fnmatchcase(row, only)]
    if not rows:
        raise SystemExit(f'{name} has no row "{only}"; it has: {", ".join(BENCHMARKS[name].names)}')
    taken = rounds if BENCHMARKS[name].measured else 0
    tables = tuple(table.counted(taken) for table in BENCHMARKS[name].measure(rows, rounds, compiled=compiled))
    threads = torch.get_num_threads()
    if threads > 1:
        tables = tuple(dataclasses.replace(table, title=f"{table.title}, {threads} threads") for table in tables)
    return Result(name, BENCHMARKS[name].where(), taken, tables, remark)


def committed(path: Path) -> Result | None:
    """The result that was last committed under a file's name; without git, what the file holds.

    A run overwrites the file. So a second run of the same bad figure would find nothing lost beside the file.
    """
    command = ["git", "show", f"HEAD:./{path.name}"]
    try:
        found = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return load(path)
    return read(found.stdout)


def refuse_a_part(path: Path, here: Mapping[str, str], threads: int, *, some: bool) -> None:
    """Refuses a run that cannot keep what it does not measure, as that is of another machine or other versions.

    Args:
        path: the file of results.
        here: this machine and its versions.
        threads: of the run.
        some: whether it leaves out rows or columns.
    """
    old = load(path)
    said = differences(old.machine, here) if old else ""
    if old and said and (some or any(not _is_of(table.title, threads) for table in old.tables)):
        raise SystemExit(
            f"{path.name} is of another machine or other versions ({said}), so what this run does not measure cannot "
            "stay beside it. Run all rows, or drop the others with --replace, or keep this run elsewhere with --out "
            "FOLDER."
        )


def _is_of(title: str, threads: int) -> bool:
    """Whether a table is of so many threads."""
    return title.endswith(f", {threads} threads") if threads > 1 else not title.endswith(" threads")


def write_pages(names: Iterable[str] = BENCHMARKS, folder: Path | None = None, results: Path = RESULTS) -> None:
    """Writes results into their sections of the pages, and their pictures.

    Args:
        names: of the benchmarks.
        folder: where pages are; None means where each benchmark has its own.
        results: where results are.
    """
    for name in names:
        benchmark = BENCHMARKS[name]
        page = benchmark.page if folder is None else folder / benchmark.page.name
        result = load(results / f"{name}.json")
        page.write_text(_with_section(page.read_text(), name, benchmark, result))
        if benchmark.draw and result:
            benchmark.draw(result, page.parent / benchmark.picture.name)


def _with_section(text: str, name: str, benchmark: Benchmark, result: Result | None) -> str:
    """A page with the section of one benchmark; a page that has none gets it at its end."""
    body = "Not run yet." if result is None else result.markdown()
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {benchmark.about}\n\n{benchmark.text}\n\n{begin}\n{end}\n"
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{body}\n{end}{rest.split(end, 1)[1]}"


def _run_all(args: argparse.Namespace) -> int:
    unknown = [name for name in args.names if name not in {*BENCHMARKS, *SCRIPTS}]
    if unknown:
        raise SystemExit(f'there is no benchmark "{unknown[0]}"; there are {", ".join([*BENCHMARKS, *SCRIPTS])}')
    some = args.only != "*" or args.without_compiled
    for name in () if args.keep_nothing or args.replace else [name for name in args.names if name in BENCHMARKS]:
        refuse_a_part(args.out / f"{name}.json", BENCHMARKS[name].where(), args.threads, some=some)
    torch.set_num_threads(args.threads)
    lost: list[str] = []
    for name in args.names:
        if name in SCRIPTS:
            script, *more = SCRIPTS[name].words
            subprocess.run([sys.executable, str(HERE / script), *more], check=True, cwd=HERE.parent)
            continue
        path = args.out / f"{name}.json"
        result = run(name, args.only, args.rounds, compiled=not args.without_compiled, remark=args.remark)
        print(result.markdown())
        lost += lost_ground(committed(RESULTS / path.name), result)
        if not args.keep_nothing:
            save(merge(load(path), result), args.out)  # another run may have kept rows meanwhile
        if not args.keep_nothing and args.out.resolve() == RESULTS.resolve():
            write_pages([name])
    print("\n".join(lost))
    return 1 if any("lost ground" in line for line in lost) else 0


def main(given: list[str] | None = None) -> int:
    """Reads the command line. Returns 1 where a figure lost ground."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is")
    commands.add_parser("page", help="write the pages' sections from the results")
    runs = commands.add_parser("run", help="run benchmarks")
    runs.add_argument("names", nargs="+", metavar="NAME")
    runs.add_argument("--only", default="*", help="a glob over the rows")
    runs.add_argument("--rounds", type=int, default=15)
    runs.add_argument("--threads", type=int, default=1)
    runs.add_argument("--without-compiled", action="store_true", help="leave torch.compile out")
    runs.add_argument("--keep-nothing", action="store_true", help="print, but write nothing")
    runs.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FOLDER", help="where results are kept; elsewhere no page changes"
    )
    runs.add_argument("--replace", action="store_true", help="drop what is of another machine or other versions")
    runs.add_argument("--remark", default="", help="a sentence on the circumstances, for the page")
    args = parser.parse_args(given)
    if args.command == "run":
        return _run_all(args)
    if args.command == "page":
        write_pages()
        print(f"wrote {', '.join(BENCHMARKS)}")
        return 0
    for name, benchmark in BENCHMARKS.items():
        print(f"{name}: {benchmark.about}; rows: {', '.join(benchmark.names)}")
    for name, script in SCRIPTS.items():
        print(f"{name}: benchmarks/{' '.join(script.words)}; {script.about} It has a form of its own: {script.why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
