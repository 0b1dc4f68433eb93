"""The section of `docs/reliability.md` on what attacks have found, with the tests that hold each from coming back."""

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
HEAD = """
## What was found, and the tests that hold it

altprop was attacked by people and by chance. Each finding has a number, and its tests bear that number in their names
(`pytest -k defect_11`). The table is made of these names.

"""
FOUND = {
    1: "a model in one region was trained by exact backprop under a local rule",
    2: "a layer that was replaced after the first step was never trained",
    3: "a `Function` whose backward is Python was differentiated otherwise, in one spelling",
    4: "`explain()` said what the first compilation had frozen",
    5: "a dropout's `p`, a temperature, a flag stayed as they were at capture",
    6: "`rule=` beside a plan file of another rule was ignored",
    7: "globs that match no region were ignored",
    8: "forward hooks on submodules were not called, or stayed for ever",
    9: "rules with targets learned otherwise from a loss that is scaled",
    10: "the mirrors of `wm` died behind a normalisation",
    11: "models that end in an activation sent the error behind it",
    12: "`hdfa` ignored `gamma` without a momentum, and corrected Adam's momenta by all steps",
    13: "an operator of `torch.library` between layers ended in torch's own words",
    14: "the parameters of a loss were neither trained nor listed",
    15: "operators without a derivative gave zero, or were refused, as it came",
    16: "some operators drew other numbers than the model's forward",
    17: "a shortcut was measured as feedback without weights, and gave NaN",
    18: "the first step under inductor was compared with nothing",
    20: "replicas that begin differently trained two models",
    21: "the reader of citation graphs ran the code of strangers",
    22: "the resume of a schedule ran the code of strangers",
    23: "two runs in one folder wrote over each other's checkpoints",
    24: "odd plans, schedules, machines, configurations and data gave raw errors, or took long",
    25: "several threads could not compile at once",
    26: "damaged checkpoints, full disks and folders without permission gave raw errors",
    27: "half precision, sparse and lazy tensors, scripts and a class as loss gave torch's own words",
    30: "a forward of `*args` and `**kwargs` was refused with a wrong reason",
    31: "a refused capture printed a whole graph",
    32: "several inputs in a list were refused with a wrong reason",
    33: "mistakes in a rule of one's own named no line, and its noise moved the global stream",
    34: "`functional_call` on a net got a wrong reason",
    35: "a net did not have its model's signature, and tied weights failed in the Trainer",
    36: "`print(net.history)` printed 30,000 characters",
    37: "`net.param_groups()` wanted a rate that the recipe has, and Muon could not take the groups",
    38: "operators that bind the batch were told in long or wrong words",
    39: "several smaller messages blamed the wrong thing",
    40: "gradients of several processes were not averaged, and nothing said so",
    41: "a long compilation said nothing",
    42: "results that nobody reads ended in an internal error",
    43: "tests failed on a loaded machine, since their limits went by the clock",
    44: "a layer in a plain list, or outside the model, was not trained, and nothing said so",
}


def section() -> str:
    """The table.

    Raises:
        SystemExit: a finding has no test.
    """
    tests = by_number()
    without = [str(number) for number in FOUND if number not in tests]
    if without:
        raise SystemExit(f"no test bears the number of {', '.join(without)}")
    lines = ["| number | what was wrong | tests |", "|---|---|---|"]
    lines += [f"| {number:02d} | {what} | {'<br>'.join(tests[number])} |" for number, what in FOUND.items()]
    return HEAD + "\n".join(lines) + "\n"


def by_number() -> dict[int, list[str]]:
    """Files and names of the tests that bear a number: "`nets/test_defects_cut.py`: `test_defect_01_...`"."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.glob("*/test_*.py")):
        names: dict[int, list[str]] = defaultdict(list)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_defect_"):
                names[int(node.name.split("_")[2])].append(node.name.removeprefix("test_"))
        for number, own in names.items():
            found[number].append(f"`{path.relative_to(TESTS).as_posix()}`: {', '.join(f'`{name}`' for name in own)}")
    return found
