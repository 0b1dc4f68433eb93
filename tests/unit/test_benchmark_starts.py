"""The tables of starts: a line a row of each task, and no number where errors go back exactly."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import starts

import altprop


def test_exact_rows_have_no_angle_and_tasks_have_tables_of_their_own():
    first = {"row": "bp", "seed": 0, "angles": [None] * 5, "accuracies": [9.0, 95.0]}
    second = {"row": "modular", "seed": 0, "angles": [92.0, 91.0, 90.0, 89.0, 88.0], "accuracies": [9.0, 90.0]}
    third = second | {"row": "dfa(kind='dense')", "task": starts.DENSE}
    assert starts.table([first, second, third]).splitlines()[2:] == [
        "| `bp` | 1 | exact | exact | exact | exact | exact | 95.0 |",
        "| `modular` | 1 | 92.0 | 91.0 | 90.0 | 89.0 | 88.0 | 90.0 |",
    ]
    (line,) = starts.table([first, second, third], starts.DENSE).splitlines()[2:]
    assert line == "| `dfa(kind='dense')` | 1 | 92.0 | 91.0 | 90.0 | 89.0 | 88.0 | 90.0 |"


@pytest.mark.parametrize("rule", ["dfa", "dkp", "modular"])
def test_a_mean_angle_is_of_feedback_alone(rule):
    """Of modular's three connections one is exact; it would draw the mean towards zero."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    net = altprop.compile(starts.dense(), f"{rule}(kind='dense')", example_inputs=(inputs,))
    rows = net.measure(inputs, labels).connections.values()
    kinds = {row.kind for row in rows}
    assert kinds == ({"dense", "transpose"} if rule == "modular" else {"dense"})
    found = [row.angle for row in rows if row.kind == "dense"]
    assert starts.angle(net, inputs, labels) == round(sum(found) / len(found), 1)


def test_no_angle_stands_where_all_errors_go_back_exactly():
    net = altprop.compile(starts.dense(), "bp", example_inputs=(torch.randn(2, 1, 8, 8),))
    assert starts.angle(net, torch.randn(4, 1, 8, 8), torch.randint(10, (4,))) is None
