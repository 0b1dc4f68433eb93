"""Who may import whom.

The compiler makes data and the runtime executes data; a rule knows nothing of the passes that apply it.
Imports prove it: each folder may name only the folders below it. Every import counts, also one inside a
function or under `TYPE_CHECKING`, and so does `importlib.import_module` with a literal name.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from altprop.ir.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ir", "rules", "passes", "compiler", "runtime")
PUBLIC = ("rules",)

# folder: (the folders of ours that it may import, why no others)
MAY_IMPORT: dict[str, tuple[tuple[str, ...], str]] = {
    "ir": ((), "it is the data that all others exchange"),
    "rules": (("ir",), "a rule says what is computed, not how or where"),
    "passes": (("ir", "rules"), "a pass rewrites graphs; the pipeline in compiler orders the passes"),
    "compiler": (("ir", "rules", "passes"), "it produces data and must work where nothing is run"),
    "runtime": (("ir",), "it executes data and must work where nothing is compiled"),
    "altprop": (FOLDERS, "it is the door to all"),
    "examples": (PUBLIC, "users have the public names alone"),
    "benchmarks": (PUBLIC, "they measure what users call"),
}

# module: why nobody imports it
BANNED_MODULES = {"torch._functorch": "private, and changes in every release; use torch.func"}


def folder_of(path: Path) -> str:
    return path.parts[0]


def sources() -> list[Path]:
    found = [path.relative_to(ROOT) for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")]
    return sorted(found)


def imported_names(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every absolute module name that the source imports, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and imports_by_call(node.func):
            literals = (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))
            yield from ((node, value) for value in literals if isinstance(value, str))


def imports_by_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def wrong_import(name: str, folder: str) -> str | None:
    """Why `folder` may not import `name`, or None if it may."""
    for banned, reason in BANNED_MODULES.items():
        if name == banned or name.startswith(f"{banned}."):
            return f"{banned} is banned: {reason}"
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    if first in FOLDERS:
        return f"`{first}` installs as altprop.{first}; import it by that name"
    if first != "altprop":
        return None
    allowed, reason = MAY_IMPORT[folder]
    if second in FOLDERS:
        inside = second in (*allowed, folder)
        return None if inside else f"{folder} may not import altprop.{second}: {reason}"
    if folder in FOLDERS:
        return f"{folder} may not import the door, altprop: {reason}"
    return None


def violations(source: str, path: Path) -> list[str]:
    """All that is wrong with the imports and prints of one file, each with its line and reason."""
    tree = ast.parse(source)
    folder = folder_of(path)
    found = []
    for node, name in imported_names(tree):
        if why := wrong_import(name, folder):
            found.append(f"{path}:{node.lineno}: {why}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"{path}:{node.lineno}: relative import: write the whole name, so that it can be found")
        elif is_print(node) and may_not_print(path):
            found.append(f"{path}:{node.lineno}: print( in the library: return text, or use logging")
    return found


def is_print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def may_not_print(path: Path) -> bool:
    library = folder_of(path) in (*FOLDERS, "altprop")
    return library and path.parts[:2] != ("altprop", "command")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folder_imports_only_what_it_may(folder: str) -> None:
    files = [path for path in sources() if folder_of(path) == folder]
    found = [line for path in files for line in violations((ROOT / path).read_text("utf-8"), path)]
    assert not found, "\n".join(found)


def test_every_library_folder_is_scanned() -> None:
    scanned = {folder_of(path) for path in sources()}
    assert scanned >= {*FOLDERS, "altprop"}


@pytest.mark.parametrize(
    ("folder", "source", "reason"),
    [
        ("ir", "from altprop.rules import registry", "exchange"),
        ("ir", "import altprop", "the door"),
        ("rules", "from altprop import passes", "not how or where"),
        ("rules", "def late():\n    import altprop.compiler.capture.capture", "not how or where"),
        ("passes", "import altprop.runtime", "the pipeline in compiler"),
        ("compiler", "from altprop.runtime.executor import run", "nothing is run"),
        ("runtime", "from altprop.rules import get", "nothing is compiled"),
        ("runtime", "if TYPE_CHECKING:\n    import altprop.compiler", "nothing is compiled"),
        ("runtime", "importlib.import_module('altprop.passes')", "nothing is compiled"),
        ("examples", "from altprop.passes.cut import cut_regions", "public names"),
        ("passes", "from ir import graph", "installs as altprop.ir"),
        ("passes", "from . import cut", "relative import"),
        ("compiler", "from torch._functorch import partitioners", "torch.func"),
        ("compiler", "from torch import _functorch", "torch.func"),
        ("altprop", "print('x')", "logging"),
    ],
)
def test_violation_is_caught(folder: str, source: str, reason: str) -> None:
    found = violations(source, Path(folder, "broken.py"))
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/graph.py", "import torch, networkx\nfrom altprop.ir.errors import CompileError"),
        ("rules/dfa.py", "from altprop.ir import graph"),
        ("compiler/capture/capture.py", "from altprop.passes.cut import cut_regions"),
        ("altprop/__init__.py", "from altprop.compiler import pipeline\nfrom altprop.runtime import net"),
        ("altprop/command/train.py", "print('x')"),
        ("examples/demo.py", "import altprop\nfrom altprop.rules import get\nprint('x')"),
    ],
)
def test_right_import_passes(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []


def unresolved(tree: ast.AST) -> list[str]:
    """What a source imports of ours that stands nowhere in a checkout, as an editor or type checker looks for it."""
    found = []
    for _, name in imported_names(tree):
        parts = name.split(".")
        if parts[0] != "altprop":
            continue
        places = [ROOT.joinpath(*parts), ROOT.joinpath(*parts[:-1])]
        if not any(place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places):
            found.append(name)
    return found


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "tests", "docs"])
def test_every_import_of_ours_is_found_in_the_checkout(folder: str) -> None:
    """Nothing has to be installed for it: the links in altprop/ lead to the other folders."""
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py")}
    missing = {path: found for path, text in texts.items() if (found := unresolved(ast.parse(text)))}
    assert not missing


def test_an_import_that_leads_nowhere_is_caught() -> None:
    source = "import altprop.ir.graph, torch.nowhere\nfrom altprop.ir import graph\nfrom altprop.ir.grape import Seed"
    assert unresolved(ast.parse(source)) == ["altprop.ir.grape.Seed"]


def circles(texts: dict[str, str]) -> list[list[str]]:
    """Modules that import each other in a circle; every import counts, also one inside a function."""
    graph = nx.DiGraph()
    for module, text in texts.items():
        for _, name in imported_names(ast.parse(text)):
            whole = name if name in texts else name.rpartition(".")[0]
            if whole in texts and whole != module:
                graph.add_edge(module, whole)
    return [sorted(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]


def installed_name(path: Path) -> str:
    """The name by which a file of the library is imported."""
    parts = path.with_suffix("").parts
    return ".".join(parts if parts[0] == "altprop" else ("altprop", *parts)).removesuffix(".__init__")


def test_no_files_import_in_a_circle() -> None:
    inside = [path for path in sources() if folder_of(path) in (*FOLDERS, "altprop")]
    rooms = [path for path in inside if path.parts[:2] not in [("altprop", folder) for folder in FOLDERS]]
    found = circles({installed_name(path): (ROOT / path).read_text("utf-8") for path in rooms})
    told = [
        f"{' and '.join(one)} import each other in a circle: give what both want a file of its own" for one in found
    ]
    assert not found, "\n".join(told)


def test_a_circle_is_caught() -> None:
    texts = {"a.b": "from a import c", "a.c": "def f():\n    from a.b import x", "a.d": "import a.b"}
    assert circles(texts) == [["a.b", "a.c"]]


def test_every_view_is_there() -> None:
    """Data classes find their texts and pictures by a table of names."""
    for place in VIEWS.values():
        module, _, function = place.partition(":")
        path = ROOT / f"{module.removeprefix('altprop.').replace('.', '/')}.py"
        assert f"\ndef {function}(" in path.read_text("utf-8")
