"""Files that went wrong once, each by its number: a stranger's, damaged ones, odd ones."""

import gzip
import lzma
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from citations import csr_pickle, make_citations

import altprop
from altprop import Machine, PlanError, ProgramError, RuleError, Schedule, ScheduleError, WiringPlan, models
from altprop.data import DataError, load
from altprop.data.characters import load_characters
from altprop.data.idx import read_idx
from altprop.data.pickles import PickleError, SparseMatrix, read_pickle
from altprop.data.planetoid import PARTS, load_citations
from altprop.data.read_whole import read_file
from altprop.ir.plan_text import parse_plan
from altprop.ir.program_text import parse_program
from altprop.rules import get
from altprop.training import ConfigError, make_config


class Stranger:
    """Makes a file when it is unpickled by a reader that runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("part", [part for part in PARTS if part != "test.index"])
def test_defect_21_planetoid_runs_no_code(tmp_path: Path, part: str) -> None:
    make_citations(tmp_path / "planetoid")
    (tmp_path / "planetoid" / f"ind.cora.{part}").write_bytes(pickle.dumps(Stranger(tmp_path / "ran"), protocol=2))
    with pytest.raises(DataError, match=rf"ind.cora.{part} is not a file .* asks for posix.mkdir"):
        load_citations("cora", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_defect_21_planetoid_is_read_as_it_was(tmp_path: Path) -> None:
    made = make_citations(tmp_path / "planetoid")
    graph = load_citations("cora", tmp_path)
    order = [0, 1, 2, 3, 4, 5, 7, 6]
    words = made["words"][order] / np.maximum(made["words"][order].sum(1, keepdims=True), 1)
    np.testing.assert_allclose(graph.features.numpy(), words, rtol=1e-6)
    assert graph.labels.tolist() == made["labels"][order].argmax(1).tolist()
    assert graph.edges.tolist() == sorted(graph.edges.t().tolist()) or graph.edges.shape == (2, 8 + 32)
    assert graph.train.tolist() == [True] * 3 + [False] * 5
    assert graph.test.tolist() == [False] * 6 + [True] * 2


DAMAGED: dict[str, tuple[str, bytes | Any]] = {
    "empty": ("allx", b""),
    "torn": ("tx", lambda old: old[: len(old) // 2]),
    "no pickle": ("graph", b"hello"),
    "a number": ("graph", pickle.dumps(3)),
    "other rows": ("ally", pickle.dumps(np.eye(3), protocol=2)),
    "one column": ("ty", pickle.dumps(np.zeros(2), protocol=2)),
    "edges out of it": ("graph", pickle.dumps({node: [99] for node in range(8)}, protocol=2)),
    "edges of text": ("graph", pickle.dumps({node: ["a"] for node in range(8)}, protocol=2)),
    "fewer nodes": ("graph", pickle.dumps({0: [1]}, protocol=2)),
    "no numbers": ("test.index", b"7\nsix\n"),
    "long number": ("test.index", b"7" * 5000),
    "not ASCII": ("test.index", b"\xff\xfe7"),
    "twice": ("test.index", b"7\n7\n"),
    "an array as matrix": ("allx", pickle.dumps(np.eye(6), protocol=2)),
    "not a number": ("tx", csr_pickle(np.full((2, 5), np.nan))),
    "objects": ("ty", pickle.dumps(np.array([None, {}]), protocol=2)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_defect_21_damaged_planetoid(tmp_path: Path, case: str) -> None:
    make_citations(tmp_path / "planetoid")
    part, content = DAMAGED[case]
    path = tmp_path / "planetoid" / f"ind.cora.{part}"
    path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))
    with pytest.raises(DataError, match=r"^[^\n]{20,400}$"):
        load_citations("cora", tmp_path)


def test_defect_21_every_reader_of_pickles_is_the_one_that_runs_nothing() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [
        path for folder in ("altprop/data", "runtime", "compiler", "ir") for path in (root / folder).rglob("*.py")
    ]
    loads = re.compile(r"pickle\.loads?\(|Unpickler|torch\.load\((?!.*weights_only=True)|allow_pickle=True")
    assert [path for path in sources if loads.search(path.read_text("utf-8"))] == []


def test_defect_21_a_pickle_of_arrays_takes_no_more_than_it_has() -> None:
    size = (2**20).to_bytes(4, "little")
    part = b"B" + size + bytes(2**20) + b"q\x630"
    kind = pickle.dumps(np.dtype("u1"), protocol=2)[2:-1]
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    array = empty + b"(K\x01J" + size + b"\x85" + kind + b"\x89h\x63tb"
    assert read_pickle(b"\x80\x04" + part + array + b".").shape == (2**20,)
    bomb = b"\x80\x04" + part + b"]" + (array + b"a") * 100 + b"."
    with pytest.raises(PickleError, match="far more memory than its"):
        read_pickle(bomb)


@pytest.mark.parametrize("value", [{"a": [1, -2, 3.5, None, True, "é", b"\xff"]}, [], (1, (2, 3)), 2**80])
@pytest.mark.parametrize("protocol", range(5))
def test_defect_21_plain_values_are_read(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)) == value


def test_defect_21_sparse_matrices_are_whole() -> None:
    dense = np.array([[0, 1.5, 0], [0, 0, 0], [2, 0, 3]])
    matrix = read_pickle(csr_pickle(dense))
    assert isinstance(matrix, SparseMatrix)
    assert (matrix.rows.tolist(), matrix.columns.tolist(), matrix.values.tolist()) == (
        [0, 2, 2],
        [1, 0, 2],
        [1.5, 2, 3],
    )


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_defect_24_packed_files_do_not_fill_the_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    pack = gzip.compress if suffix == ".gz" else lzma.compress
    path.write_bytes(pack(bytes(65 * 2**20)))
    with pytest.raises(DataError, match=r"unpacks to more than 67108864, as no data set does"):
        read_file(path)


@pytest.mark.parametrize(
    "sizes",
    [(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1), (2**31, 2**31, 4), (0, 2**32 - 1), (2**16, 2**16, 2**16, 2**16)],
)
def test_defect_24_sizes_that_wrap(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "images"
    header = bytes((0, 0, 8, len(sizes))) + b"".join(size.to_bytes(4, "big") for size in sizes)
    path.write_bytes(header)
    with pytest.raises(DataError, match="is damaged"):
        read_idx(path)


def test_defect_24_odd_labels(tmp_path: Path) -> None:
    home = tmp_path / "cifar-10-batches-py"
    home.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        content = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10 if name == "data_batch_4" else 9]}
        (home / name).write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_4: label 1 is 10, of 10 classes"):
        load("cifar10", tmp_path, validation=2)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"short"])
def test_defect_24_texts_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"input.txt (is not a text|has \d characters)"):
        load_characters(tmp_path)


SPACES = " " * 100_000
PLAN = "altprop plan 1\nregion a: dfa\nregion b: dfa\n"
LONG = {
    "behind a rule": "region a: b" + SPACES + ";",
    "behind a name": "region a" + SPACES + "b",
    "in a name": "region " + "a " * 50_000 + ";",
    "in a rule": "region a: " + "b " * 50_000 + ";x",
    "behind a device": "region a: b; device c" + SPACES + "d",
    "between names": "a" + SPACES + "b -> c",
    "behind a kind": "a -> b: dense" + SPACES + "x",
    "brackets": "a -> b: dense(" + ") " * 50_000 + "x",
    "quotes": "region " + '"' * 100_001,
    "backslashes": 'region "' + "\\" * 100_001,
    "options": "a -> b: dense(" + "x=1, " * 2 + ",".join(f"y{number}=1" for number in range(20_000)) + ", z",
}


@pytest.mark.parametrize("case", LONG)
def test_defect_24_plan_text_is_read_in_linear_time(case: str) -> None:
    """Where it was not, one of these took many minutes."""
    with pytest.raises(PlanError, match=r"^.{20,400}$"):
        parse_plan(PLAN + LONG[case])


def option(text: str) -> str:
    return f"{PLAN}b -> a: dense({text}) fixed"


NESTED = "[" * 100_000
ODD_PLANS = {
    "nested": (option(f"scale={NESTED}"), "nested more than 32 deep"),
    "many digits": (option(f"scale={'7' * 5000}"), "5000 digits, more than 100"),
    "too large": (option("scale=1e999"), "is not finite"),
    "not a number": (option("scale=NaN"), "NaN is not a number of JSON"),
    "half a character": (option(r'name="\ud800"'), "half of a character"),
    "bad escape of a value": (option(r'name="\q"'), r'the value of "name" in "\\q" is not JSON'),
    "bad escape of a key": (option(r'"\q"=1'), "is not JSON"),
    "bad escape of a name": (PLAN + r'region "\q": dfa', "is not JSON"),
    "version": ("altprop plan " + "7" * 5000, "this altprop reads version 1"),
}


@pytest.mark.parametrize("case", ODD_PLANS)
def test_defect_24_odd_plan_texts(case: str) -> None:
    text, message = ODD_PLANS[case]
    with pytest.raises(PlanError, match=message) as raised:
        parse_plan(text)
    assert len(str(raised.value)) < 400 or case == "version"


HEAD = '"schema": "altprop/wiring-plan", "version": 1'
ODD_DOCUMENTS = {
    "nested": (NESTED, "nested more than 32 deep"),
    "nested objects": ('{"a":' * 50_000, "nested more than 32 deep"),
    "many digits": (f'{{{HEAD}, "name": {"7" * 5000}}}', "5000 digits"),
    "infinite": (f'{{{HEAD}, "name": -Infinity}}', "numbers must be finite"),
    "half a character": (f'{{{HEAD}, "name": "\\udfff"}}', "half of a character"),
    "many problems": (f'{{{HEAD}, "regions": [{"1, " * 2000}1], "connections": []}}', "and 1993 more"),
    "a long text": (f'{{{HEAD}, "regions": "{"a" * 100_000}", "connections": []}}', r'not the text "aaa.*\.\.\.'),
}


@pytest.mark.parametrize("case", ODD_DOCUMENTS)
def test_defect_24_odd_plan_files(tmp_path: Path, case: str) -> None:
    text, message = ODD_DOCUMENTS[case]
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=message) as raised:
        WiringPlan.load(tmp_path / "plan.json")
    assert len(str(raised.value)) < 1500


def test_defect_24_a_graph_file_that_repeats_itself(tmp_path: Path) -> None:
    lines = ['<!ENTITY a0 "lol">', *(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))]
    (tmp_path / "plan.graphml").write_text(f"<!DOCTYPE graphml [{''.join(lines)}]><graphml>&a9;</graphml>")
    with pytest.raises(PlanError, match="no document type of its own"):
        WiringPlan.load(tmp_path / "plan.graphml")


SCHEDULE = "altprop schedule 1\norder list\ndigest d\nbatch 4\nmicrobatches 1\ndevice 0 cpu\n"
ODD_SCHEDULES = {
    "many digits": SCHEDULE.replace("batch 4", "batch " + "7" * 5000),
    "bad escape": SCHEDULE + r'home "\q" 0',
    "half a character": SCHEDULE + r'home "\ud800" 0',
    "other digits": SCHEDULE.replace("batch 4", "batch ٤"),
    "dtype": SCHEDULE + "value x float99 (4) strides (1) bytes 16",
    "long": SCHEDULE + "  F x " + "(" * 100_000,
    "many microbatches": SCHEDULE.replace("microbatches 1", f"microbatches {10**17}"),
    "many names": SCHEDULE + "on 0\n  F x (4) bytes 16, reads " + "a " * 20_000 + "a",
}


@pytest.mark.parametrize("case", ODD_SCHEDULES)
def test_defect_24_odd_schedules(case: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        Schedule.parse(ODD_SCHEDULES[case])
    assert 20 < len(str(raised.value)) < (3000 if case.startswith("many names") else 300)


ODD_MACHINES = {
    "not a number": '{"version": 1, "flops": NaN}',
    "infinite": '{"version": 1, "flops": Infinity}',
    "too large": '{"version": 1, "memory": 1e999}',
    "many digits": f'{{"version": 1, "memory": {"7" * 5000}}}',
    "beyond floats": f'{{"version": 1, "flops": {"7" * 90}}}',
    "tiny": '{"version": 1, "bandwidth": 5e-324}',
    "truth": '{"version": 1, "flops": true}',
    "version": '{"version": true}',
    "nested": NESTED,
    "twice": '{"version": 1, "flops": 1, "flops": 2}',
    "speed": '{"version": 1, "speeds": {"cuda": NaN}}',
}


@pytest.mark.parametrize("case", ODD_MACHINES)
def test_defect_24_odd_machines(tmp_path: Path, case: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(ODD_MACHINES[case])
    with pytest.raises(ScheduleError, match=r"^[^\n]{20,300}$"):
        Machine.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ScheduleError, match="byte 0 is not UTF-8"):
        Machine.load(path)


ODD_CONFIGS = {
    "nested": NESTED,
    "nested blocks": "- " * 100_000,
    "aliases": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 20}]\n" for n in range(1, 9)),
    "an alias of itself": "a: &a [*a]",
    "many digits": "epochs: " + "7" * 5000,
    "no date": "out: 2001-99-99",
    "a number as key": "3: 4",
    "a list as key": "? [a]\n: b",
    "too long": "#" * 2**21,
    "infinite": "lr: .inf",
    "not a number": "momentum: .nan",
    "rule": "rule: " + "(" * 100_000,
    "rule of minus signs": "rule: dfa(scale=" + "-" * 9000 + "1)",
}


@pytest.mark.parametrize("case", ODD_CONFIGS)
def test_defect_24_odd_configurations(tmp_path: Path, case: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(ODD_CONFIGS[case])
    with pytest.raises((ConfigError, RuleError), match=r"^[^\n]{20,500}$"):
        get(make_config(path).rule)  # compiling reads the rule


ODD_RULES = ["dfa(" + "(" * 1000, "dfa(scale=1, scale=2)", "dfa(**3)", "dfa(scale='a' * 3)", "a" * 20_000, "dfa(\0)"]


@pytest.mark.parametrize("text", [*ODD_RULES, "dfa.b", ""])
def test_defect_24_odd_rules(text: str) -> None:
    with pytest.raises(RuleError, match=r"^[^\n]{20,300}$"):
        get(text)


@pytest.mark.parametrize("options", [{"channels": -1}, {"channels": 10**12}, {"channels": 2**70}, {"channels": "wide"}])
def test_defect_24_models_of_odd_sizes(options: dict[str, Any]) -> None:
    with pytest.raises(models.ModelError, match=r"^convnet cannot be built with channels=\S+: [^\n]+$"):
        models.build("convnet", (1, 8, 8), **options)


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -1.0])
def test_defect_24_rates_that_are_none(lr: float) -> None:
    with pytest.raises(altprop.CompileError, match=r"SGD: lr is .*; it must be 0 or more"):
        altprop.optim.SGD(lr=lr)


def test_defect_24_what_chance_found_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="a number in it is too large"):
        get("drtp(scale=1e309)")
    with pytest.raises(RuleError, match=r"^.{1,400}$"):
        get(f"reclra(units='{'9' * 5000}')")
    with pytest.raises(RuleError, match=r"^reclra: kappa=.{1,80}; it is"):
        get(f"reclra(kappa={{'2': {'9' * 400}}})")
    with pytest.raises(PickleError, match=r"asks for \?\.ndarray"):
        read_pickle(b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93\x8c\x07ndarray\x93.")
    with pytest.raises(ProgramError, match="larger than any memory"):
        parse_program(f"altprop program 1\nprogram step\ntake x = input 0: float32 ({10**30})")
