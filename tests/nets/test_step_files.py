"""The table of step files: what each word in it means, and that every net of it trains in every engine as in torch."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from altprop.compiler.export import pte_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import step_files

FOUND = {"bytes": 2000, "ms": 0.5, "arena": 12_345}


def row(gap: float, drift: float, exact: float | None = None, alike: int = 0) -> dict[str, Any]:
    ran = FOUND | {"difference": gap, "alike": alike} | ({} if exact is None else {"float64": {"difference": exact}})
    return {"torch": {"ms": 1.0, "states": 400, "drift": drift}, "onnxruntime": ran, "ExecuTorch": {"refused": "no"}}


@pytest.mark.parametrize(
    ("gap", "drift", "exact", "alike", "word"),
    [
        (1e-5, 0.0, None, 0, "equal"),
        (3e-4, 0.0, 2e-9, 0, "rounding grows to 3e-04; float64: 2e-09"),
        (3e-4, 3e-5, None, 0, "rounding grows to 3e-04; torch: 3e-05"),
        (3e-4, 3e-5, 3e-4, 18, "rounding grows to 3e-04; torch: 3e-05"),
        (3e-4, 2e-5, 3e-4, 15, "rounding grows to 3e-04; steps: 15"),
        (3e-4, 2e-5, 3e-4, 14, "**off by** 3e-04"),
        (float("inf"), 1.0, None, 0, "**off by** inf"),
    ],
)
def test_an_engine_is_equal_or_the_row_says_how_it_is_rounding(
    gap: float, drift: float, exact: float | None, alike: int, word: str
) -> None:
    found = row(gap, drift, exact, alike)
    assert step_files.equal(found, "onnxruntime") == word
    assert step_files.equal(found, "ExecuTorch") == "refused"
    assert step_files.equal(found, "XNNPACK") == "–", "not measured"


def test_the_table_has_a_line_for_each_row_in_order() -> None:
    rows = {"lstm, fa, Adam": row(0.0, 0.0), "mlp, dfa, Muon": {"refused": "no rule"}, "mlp, dfa, SGD": row(0.0, 0.0)}
    head, rule, *lines = step_files.table(rows).splitlines()
    assert {line.count("|") for line in (head, rule, *lines[:3])} == {head.count("|")}
    assert [line.split(" | ")[1] for line in lines[:3]] == ["dfa, SGD", "dfa, Muon", "fa, Adam"]
    assert lines[-3:] == ["1. mlp, dfa, ExecuTorch: no", "2. mlp, dfa: no rule", "3. lstm, fa, ExecuTorch: no"]


def test_engines_that_were_not_measured_again_stay() -> None:
    before, now = row(3e-4, 3e-5), {"torch": {"ms": 0.5}, "ExecuTorch": FOUND | {"difference": 0.0}}
    found = step_files.joined(before, now)
    assert step_files.equal(found, "onnxruntime") == step_files.equal(before, "onnxruntime")
    assert step_files.equal(found, "ExecuTorch") == "equal"
    assert found["torch"]["ms"] == 0.5
    assert step_files.joined({"refused": "no rule"}, now) == now
    assert step_files.joined(before, {"refused": "no rule"}) == {"refused": "no rule"}


def test_a_step_is_alike_where_the_engine_does_as_torch_from_the_same_state() -> None:
    """An engine that is off at every third step, by too much to be called equal."""
    net = step_files.compiled("mlp", "dfa", "SGD")
    other = step_files.copy.deepcopy(net)
    contract = {"inputs": [{"name": "x"}], "states": [state(name) for name, _ in net.model.named_parameters()]}
    calls: list[int] = []

    def run(given: Any) -> dict[str, Any]:
        calls.append(len(calls))
        with torch.no_grad():
            for name, parameter in other.model.named_parameters():
                parameter.copy_(torch.from_numpy(given[name]))
        other.step(torch.from_numpy(given["x"]), torch.from_numpy(given["target"]))
        off = 1e-3 * (calls[-1] % 3 == 0)
        return {f"{name}.next": value.detach().numpy() + off for name, value in other.model.named_parameters()}

    assert step_files.alike(net, "mlp", contract, run) == step_files.STEPS - len(calls[::3])


def state(name: str) -> dict[str, str]:
    return {"name": name, "next": f"{name}.next", "state_dict": f"model.{name}", "dtype": "float32"}


def test_the_arenas_stand_by_net_and_batch() -> None:
    rows = {"mlp, bp, 8": {"arena": 9000}, "mlp, dfa, 8": {"arena": 4500}, "mlp, drtp, 8": {"refused": "no"}}
    assert step_files.arena_table(rows).splitlines()[-1] == "| mlp | 8 | 4.5 | refused | – | 9.0 |"


@pytest.mark.full
@pytest.mark.skipif(
    not pte_file.is_installed(), reason="ExecuTorch is not installed: pip install 'altprop[executorch]'"
)
@pytest.mark.parametrize("name", list(step_files.NETS))
def test_every_net_trains_in_every_engine_as_in_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_files, "DELEGATED", ())
    found = step_files.measure(name, "dfa", "momentum")
    for engine in ("onnxruntime", "ExecuTorch"):
        word = step_files.equal(found, engine)
        assert word == "equal" or (name == "resnet20" and word.startswith("rounding grows to")), word
