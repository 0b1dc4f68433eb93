"""What ruff cannot check: sizes, names and words of the tracked files."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("altprop", "ir", "rules", "passes", "compiler", "runtime")
AROUND = ("benchmarks", "examples")
# Each is the one file of its room that names what is private to torch.
PRIVATE_FILES = (Path("ir/torch_private.py"), Path("benchmarks/private_torch.py"))
# What two exporters share.
NAMES_SHARED_ON_PURPOSE: set[str] = set()
MOST_LINES_IN_A_FILE = 400
MOST_LINES_IN_THE_MEDIAN_FILE = 100
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


@functools.cache
def tree_of(text: str) -> ast.Module:
    """A source, parsed once for all tests."""
    return ast.parse(text)


@functools.cache
def nodes_of(text: str) -> list[ast.AST]:
    """All nodes of a source, found once for all tests."""
    return list(ast.walk(tree_of(text)))


@functools.cache
def attributes_of(text: str) -> list[tuple[str, ast.Attribute]]:
    """All `owner.name` of a source, each with its owner."""
    return [(ast.unparse(node.value), node) for node in nodes_of(text) if isinstance(node, ast.Attribute)]


PRIVATE = re.compile("_[a-zA-Z]")
TRACKED = tracked_files()
PYTHON = [path for path in TRACKED if path.suffix == ".py"]


def machine_paths(text: str) -> list[str]:
    return MACHINE_PATH.findall(text)


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def` to its end, all but its docstring; what stands in it counts."""
    last = function.end_lineno or function.lineno
    documented = ast.get_docstring(function) is not None
    first = function.body[0]
    return last - function.lineno + 1 - (documented and (first.end_lineno or first.lineno) - first.lineno + 1)


def options_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of its list of arguments."""
    return function.body[0].lineno - function.lineno - 1


def long_functions(text: str, *, options_count: bool = True) -> list[str]:
    functions = [node for node in nodes_of(text) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    counted = [(one.name, lines_of(one) - (0 if options_count else options_of(one))) for one in functions]
    return [f"{name} ({count} lines)" for name, count in counted if count > MOST_LINES_IN_A_FUNCTION]


def private_names_of_torch(text: str) -> list[str]:
    """What a source names of torch that is private or experimental; operators, `torch.ops...`, are no names of it."""
    found = []
    for node in nodes_of(text):
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
    library = [path for path in PYTHON if path.parts[0] in LIBRARY + AROUND and path not in PRIVATE_FILES]
    found = {str(path): private_names_of_torch(text_of(path)) for path in library}
    assert not {path: names for path, names in found.items() if names}
    assert private_names_of_torch("import torch._C") == ["torch._C"]
    assert private_names_of_torch("from torch.utils import _pytree as p") == ["torch.utils._pytree"]
    assert private_names_of_torch("from torch.fx.experimental.x import y") == ["torch.fx.experimental.x.y"]
    assert private_names_of_torch("torch._check(x)") == ["torch._check"]
    assert not private_names_of_torch("torch.ops.aten._softmax(x), torch.nn.functional.relu(x)")


def is_operator(owner: str) -> bool:
    """Whether a name of this owner is an operator's, `torch.ops.aten._softmax`: those are in schemas, open to all."""
    words = owner.split(".")
    return "ops" in words or words[0] in ("aten", "quantized", "mkldnn")


def private_names(text: str) -> set[str]:
    """Names that a source defines: functions, classes, fields, and attributes of `self` and `cls`."""
    own = {node.attr for owner, node in attributes_of(text) if owner in ("self", "cls")}
    defined = {node.name for node in nodes_of(text) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    fields = {node.target for node in nodes_of(text) if isinstance(node, ast.AnnAssign)}
    return own | defined | {field.id for field in fields if isinstance(field, ast.Name)}


def strange_attributes(text: str) -> list[str]:
    """Private attributes of other objects than `self`, of no class that stands in the same source."""
    outside = [(owner, node.attr) for owner, node in attributes_of(text) if owner not in ("self", "cls")]
    private = [(owner, name) for owner, name in outside if PRIVATE.match(name) and not is_operator(owner)]
    known = {*(private_names(text) if private else ()), "_asdict", "_getframe"}  # of Python
    return [f"{owner}.{name}" for owner, name in private if name not in known]


def derived_from(bases: dict[str, set[str]], roots: set[str]) -> set[str]:
    """Classes that derive from some, by the names of their bases."""
    more = {name for name, of in bases.items() if of & roots} | roots
    return roots if more == roots else derived_from(bases, more)


def names_of_modules(texts: list[str]) -> list[str]:
    """Private names of `nn.Module` that classes which derive from it use or define."""
    classes = [node for text in texts for node in nodes_of(text) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base).split(".")[-1] for base in node.bases} for node in classes}
    modules = derived_from(bases, {"Module", "InCheckpoints"})
    found = []
    for one in classes:
        if one.name in modules:
            used = {getattr(node, "attr", getattr(node, "name", None)) for node in ast.walk(one)}
            found += [f"{one.name}.{name}" for name in sorted(used & OF_MODULES)]
    return found


def words_of(text: str) -> set[str]:
    """All that stands between quotes."""
    constants = (node.value for node in nodes_of(text) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


OF_MODULES = {name for name in (*dir(nn.Module), *vars(nn.Module())) if PRIVATE.match(name)}


def test_no_private_attribute_of_another_is_read() -> None:
    """Those of torch have functions in ir/torch_private.py; ours are asked by public names."""
    library = [path for path in PYTHON if path.parts[0] in LIBRARY + AROUND and path not in PRIVATE_FILES]
    texts = {str(path): text_of(path) for path in library}
    assert not {path: found for path, text in texts.items() if (found := strange_attributes(text))}
    assert not names_of_modules(list(texts.values()))
    assert not {path: found for path, text in texts.items() if (found := words_of(text) & OF_MODULES)}


def test_a_private_attribute_of_another_is_caught() -> None:
    own = "class A:\n    def _f(self, other):\n        return other._f(tensor._grad_fn, torch.ops.aten._softmax)\n"
    assert strange_attributes(own) == ["tensor._grad_fn"]
    texts = ["class A(nn.Module):\n    pass", "class B(A):\n    def f(self):\n        return self._buffers, self._own"]
    assert names_of_modules(texts) == ["B._buffers"]
    assert words_of("getattr(module, '_buffers')") == {"_buffers"}


def asks_backend(text: str) -> list[str]:
    """Conditions that ask which backend it is; what it wants is asked of the backend itself."""
    found = []
    for node in nodes_of(text):
        tests = [node.test] if isinstance(node, ast.If | ast.IfExp | ast.While) else []
        tests += [node] if isinstance(node, ast.Compare) else []
        for inner in (inner for test in tests for inner in ast.walk(test)):
            name = inner.id if isinstance(inner, ast.Name) else inner.attr if isinstance(inner, ast.Attribute) else ""
            if name.endswith("backend"):
                found.append(ast.unparse(node).split("\n")[0])
    return found


def test_nobody_asks_which_backend_it_is() -> None:
    library = [path for path in PYTHON if path.parts[0] in LIBRARY + AROUND]
    library.remove(Path("runtime/backends/table.py"))
    assert not {str(path): found for path in library if (found := asks_backend(text_of(path)))}
    assert asks_backend("if backend == 'eager':\n    pass") == ["if backend == 'eager':", "backend == 'eager'"]
    assert asks_backend("x = 1 if net.backend.name in FAST else 2")
    assert not asks_backend("run(backend.prepare(program))")


def compares_with(text: str, word: str) -> list[str]:
    compared = (node for node in nodes_of(text) if isinstance(node, ast.Compare))
    return [
        ast.unparse(node)
        for node in compared
        if any(isinstance(inner, ast.Constant) and inner.value == word for inner in ast.walk(node))
    ]


def told_by_name(text: str) -> list[str]:
    """Where a part of the name of a node or of its printed target is asked for: names never say what a node is."""
    methods = ("startswith", "endswith", "partition", "rpartition", "removeprefix", "removesuffix", "split")
    found = []
    for node in nodes_of(text):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            found += [node] if ends_in_name(node.func.value) or is_printed_target(node.func.value) else []
        elif isinstance(node, ast.Compare) and any(isinstance(one, ast.In | ast.NotIn) for one in node.ops):
            literal = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
            named = is_printed_target(node.comparators[0]) or (literal and ends_in_name(node.comparators[0]))
            found += [node] if named else []
    return [ast.unparse(node) for node in found]


def is_printed_target(node: ast.expr) -> bool:
    """Whether it is `str(node.target)`, a target as text."""
    printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str"
    return printed and bool(node.args) and isinstance(node.args[0], ast.Attribute) and node.args[0].attr == "target"


def ends_in_name(node: ast.expr) -> bool:
    """Whether it is the name or target of something else than a schema, a path, a plan and the like."""
    if not isinstance(node, ast.Attribute) or node.attr not in ("name", "target"):
        return False
    owner = ast.unparse(node.value)
    others = ("schema", "region", "path", "plan", "record", "attribute", "argument")
    return not owner.startswith("schema_of(") and owner.split(".")[-1] not in others


def test_no_node_is_told_by_a_part_of_its_name() -> None:
    library = [path for path in PYTHON if path.parts[0] in LIBRARY + AROUND]
    told = {str(path): found for path in library if (found := told_by_name(text_of(path)))}
    assert told == {
        "compiler/export/translate.py": ["str(node.target).split('.')"],  # the path of a constant
        "passes/derive/share_updates.py": ["p.name.removeprefix(f'{p.region}:')"],  # an auxiliary parameter
    }
    assert told_by_name("node.name.startswith('zeros')") == ["node.name.startswith('zeros')"]
    assert told_by_name("'zeros' in node.name") == ["'zeros' in node.name"]
    assert told_by_name("word in str(node.target)") == ["word in str(node.target)"]
    assert told_by_name("str(node.target).endswith('x')") == ["str(node.target).endswith('x')"]
    assert not told_by_name("node.name in made, node.name == other.name, schema_of(target).name.split('::')")


def test_the_median_file_is_short() -> None:
    counts = sorted(len(text_of(path).splitlines()) for path in PYTHON if path.parts[0] in LIBRARY)
    assert counts[len(counts) // 2] <= MOST_LINES_IN_THE_MEDIAN_FILE


def test_files_are_found() -> None:
    assert Path("tests/unit/test_style.py") in PYTHON


def test_no_file_is_too_long() -> None:
    counts = {str(path): len(text_of(path).splitlines()) for path in PYTHON}
    assert not {name: n for name, n in counts.items() if n > MOST_LINES_IN_A_FILE}


def test_no_function_is_too_long() -> None:
    """Lists of options of the command line do not count."""
    commands = [path for path in PYTHON if path.parts[:2] == ("altprop", "command")]
    long = {str(path): long_functions(text_of(path), options_count=path not in commands) for path in PYTHON}
    assert not {path: found for path, found in long.items() if found}


def test_no_file_is_too_heavy() -> None:
    sizes = {str(path): (ROOT / path).stat().st_size for path in TRACKED}
    assert not {name: size for name, size in sizes.items() if size > MOST_BYTES_IN_A_FILE}


def test_no_machine_paths() -> None:
    assert not {str(path): found for path in TRACKED if (found := machine_paths(text_of(path)))}


def test_every_module_says_what_it_is() -> None:
    texts = {path: text_of(path) for path in PYTHON if path.parts[0] in LIBRARY}
    bare = [str(path) for path, text in texts.items() if not ast.get_docstring(tree_of(text))]
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


def classes_named_twice(texts: list[str]) -> set[str]:
    """Names of public classes that stand in two sources."""
    classes = [node.name for text in texts for node in tree_of(text).body if isinstance(node, ast.ClassDef)]
    return {name for name in classes if classes.count(name) > 1 and not name.startswith("_")}


def test_no_class_name_is_used_twice() -> None:
    assert not classes_named_twice([text_of(path) for path in PYTHON if path.parts[0] in LIBRARY])
    assert classes_named_twice(["class A: pass\nclass _B: pass", "class A: pass\nclass _B: pass"]) == {"A"}


def test_no_rule_is_told_by_the_word_frozen() -> None:
    """The word stands where rules are text; everywhere else a region's rule is None."""
    library = [path for path in PYTHON if path.parts[0] in LIBRARY + AROUND]
    told = {str(path) for path in library if path.parts[0] in LIBRARY and '"frozen"' in text_of(path)}
    assert told <= {"ir/plan.py", "rules/dfa_head.py", "altprop/auditing/audit_subject.py", "ir/drawing/inspector.py"}
    compared = {str(path): found for path in library if (found := compares_with(text_of(path), "frozen"))}
    assert compared == {"rules/dfa_head.py": ["self.features not in ('bp', 'frozen')"]}, "an option of its own"
    assert compares_with("if rule == 'frozen' or x in ('frozen', 'bp'): pass", "frozen")


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
    body = "".join(f"    x = {n}\n" for n in range(MOST_LINES_IN_A_FUNCTION - 1))
    documented = '    """Two\n    lines."""\n'
    assert long_functions(f"def f():\n{documented}{body}") == []
    assert long_functions(f"def f():\n{documented}{body}    return x\n") == ["f (41 lines)"]
    assert long_functions(f"def f(\n    a,\n):\n{body}") == ["f (42 lines)"]
    assert long_functions(f"def f(\n    a,\n):\n{body}", options_count=False) == []
