"""What ruff cannot check: sizes, names and words of the tracked files."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("altprop", "ir", "rules", "passes", "compiler", "runtime")
# What two exporters share.
NAMES_SHARED_ON_PURPOSE: set[str] = set()
MOST_LINES_IN_A_FILE = 400
# Tables of models, and tests that share a fixture.
LONGER_FILES = {"tests/zoo.py": 560, "tests/zoo_operators.py": 540, "tests/nets/test_cache.py": 490}
MOST_LINES_IN_A_FUNCTION = 40
MOST_BYTES_IN_A_FILE = 1_000_000
# Folders of one machine; spelled in parts, so that this file does not match itself.
MACHINE_PATH = re.compile("/" + "(?:work|farm|root|home/[a-z]+)" + "/")
FOLDERS_NOT_OURS = {".git", ".venv", "build", "dist", "results", "__pycache__"}


def tracked_files() -> list[Path]:
    """What git tracks or would add; without git, all files but those of builds and caches."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        return sorted(path for path in found if is_ours(path))
    return sorted(Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def is_ours(path: Path) -> bool:
    hidden = any(part.endswith(("_cache", ".egg-info")) for part in path.parts)
    return (ROOT / path).is_file() and not hidden and FOLDERS_NOT_OURS.isdisjoint(path.parts)


def text_of(path: Path) -> str:
    """The text of a tracked file; a picture or other binary reads as nothing."""
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return ""


TRACKED = tracked_files()
PYTHON = [path for path in TRACKED if path.suffix == ".py"]


def machine_paths(text: str) -> list[str]:
    return MACHINE_PATH.findall(text)


def code_lines(function: ast.AST, source: list[str]) -> int:
    """Lines of a function without its docstring, its comments, blank lines, and functions inside it."""
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    inner = {
        line
        for node in ast.walk(function)
        if node is not function and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = {n for node in body for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)} - inner
    return sum(1 for n in lines if source[n - 1].strip() and not source[n - 1].strip().startswith("#"))


def long_functions(text: str) -> list[str]:
    source = text.splitlines()
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    counted = ((node.name, code_lines(node, source)) for node in functions)
    return [f"{name} ({count} lines)" for name, count in counted if count > MOST_LINES_IN_A_FUNCTION]


def private_names_of_torch(text: str) -> list[str]:
    """What a source names of torch that is private or experimental; operators, `torch.ops...`, are no names of it."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        found += [name for name in names if re.match(r"torch(\.(?!ops\.)[a-z]\w*)*\.(_(?!_)|fx\.experimental)", name)]
    return found


def test_private_names_of_torch_are_in_one_file() -> None:
    library = [path for path in PYTHON if path.parts[0] in LIBRARY and path.name != "torch_private.py"]
    found = {str(path): private_names_of_torch(text_of(path)) for path in library}
    assert not {path: names for path, names in found.items() if names}
    assert private_names_of_torch("import torch._C") == ["torch._C"]
    assert private_names_of_torch("from torch.utils import _pytree as p") == ["torch.utils._pytree"]
    assert private_names_of_torch("from torch.fx.experimental.x import y") == ["torch.fx.experimental.x.y"]
    assert private_names_of_torch("torch._check(x)") == ["torch._check"]
    assert not private_names_of_torch("torch.ops.aten._softmax(x), torch.nn.functional.relu(x)")


def test_files_are_found() -> None:
    assert Path("tests/unit/test_style.py") in PYTHON


def test_no_file_is_too_long() -> None:
    counts = {str(path): len(text_of(path).splitlines()) for path in PYTHON}
    assert not {name: n for name, n in counts.items() if n > LONGER_FILES.get(name, MOST_LINES_IN_A_FILE)}


def test_no_function_is_too_long() -> None:
    library = [path for path in PYTHON if path.parts[0] in LIBRARY]
    assert not {str(path): found for path in library if (found := long_functions(text_of(path)))}


def test_no_file_is_too_heavy() -> None:
    sizes = {str(path): (ROOT / path).stat().st_size for path in TRACKED}
    assert not {name: size for name, size in sizes.items() if size > MOST_BYTES_IN_A_FILE}


def test_no_machine_paths() -> None:
    assert not {str(path): found for path in TRACKED if (found := machine_paths(text_of(path)))}


def test_every_module_says_what_it_is() -> None:
    texts = {path: text_of(path) for path in PYTHON if path.parts[0] in LIBRARY}
    bare = [str(path) for path, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    assert not bare, f"modules without a docstring: {bare}"


def names_used_twice(paths: list[Path]) -> set[str]:
    """Names of files that stand in two folders, but for those that say what a folder begins with."""
    names = [path.name for path in paths if path.name not in ("__init__.py", "base.py")]
    return {name for name in names if names.count(name) > 1} - NAMES_SHARED_ON_PURPOSE


def test_no_file_name_is_used_twice() -> None:
    assert not names_used_twice([path for path in PYTHON if path.parts[0] in LIBRARY])
    assert not names_used_twice([path for path in PYTHON if path.parts[0] == "tests"])
    assert names_used_twice([Path("ir/a.py"), Path("rules/a.py"), Path("ir/base.py"), Path("rules/base.py")]) == {
        "a.py"
    }


def test_no_rule_is_told_by_the_word_frozen() -> None:
    """The word stands where rules are text; everywhere else a region's rule is None."""
    library = [path for path in PYTHON if path.parts[0] in LIBRARY]
    told = {str(path) for path in library if '"frozen"' in text_of(path)}
    assert told <= {"ir/plan.py", "rules/dfa_head.py", "altprop/auditing/audit_subject.py", "ir/drawing/inspector.py"}


def test_constraints_are_exact_and_from_an_index() -> None:
    lines = [line for line in text_of(Path("constraints.txt")).splitlines() if not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not wrong
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if line.startswith(("altprop", "torchvision"))]


@pytest.mark.parametrize("folder", ["work", "root", "home/someone"])
def test_machine_path_is_caught(folder: str) -> None:
    assert machine_paths(f"open('/{folder}/x')")
    assert not machine_paths("https://example.org/net" + "work/x")


def test_long_function_is_caught() -> None:
    body = "".join(f"    x = {n}\n" for n in range(MOST_LINES_IN_A_FUNCTION))
    documented = '    """Two\n    lines."""\n\n    # why\n'
    assert long_functions(f"def f():\n{documented}{body}") == []
    assert long_functions(f"def f():\n{documented}{body}    return x\n") == ["f (41 lines)"]
