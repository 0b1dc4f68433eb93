"""The package as a user gets it: a wheel, and an editable install, each in an environment of its own.

The folders of the repository install as `altprop.ir`, `altprop.rules` and so on. A top-level module called
`compiler` or `runtime` in somebody's environment would be a trap, so it is tested that none appears.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import processor_time
import pytest
import yaml

import altprop

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# Where each package's sources lie; the inner ones are linked into altprop/.
INNER = ("ir", "rules", "passes", "compiler", "runtime")
FOLDERS = {"altprop": "altprop"} | {f"altprop.{name}": name for name in INNER}
NOT_TOP_LEVEL = ("ir", "rules", "passes", "compiler", "runtime", "command")
NOT_SOURCES = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "results", "tests", "benchmarks"
)

# Prints every module that is found below altprop, none of them imported but the packages.
LISTING = """
import json, pkgutil, sys
import altprop
print(json.dumps(sorted(one.name for one in pkgutil.walk_packages(altprop.__path__, "altprop."))))
"""

# Run with the names of packages; prints which of them import, and from where.
PROBE = """
import importlib, importlib.util, json, sys
packages, absent = json.loads(sys.argv[1])
places = {name: importlib.import_module(name).__file__ for name in packages}
leaked = [name for name in absent if importlib.util.find_spec(name) is not None]
print(json.dumps([places, leaked]))
"""


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Runs `command` and returns what it prints; a failure shows all of its output. Nobody's PYTHONPATH takes part."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[:4]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def packages_in(root: Path) -> set[str]:
    """The names under which folders with an `__init__.py` install."""
    names = set()
    for name, folder in FOLDERS.items():
        for init in (root / folder).rglob("__init__.py"):
            names.add(".".join([name, *init.parent.relative_to(root / folder).parts]))
    return names


def python_in(environment: Path) -> Path:
    """Makes an environment that sees this one's dependencies, but not its own install of altprop.

    A line of a .pth file adds a folder without reading the .pth files in that folder; editable installs are
    made of those.
    """
    run([sys.executable, "-m", "venv", "--without-pip", environment], environment.parent)
    site = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return environment / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    run([*pip, "--no-deps", "--no-compile", "--ignore-installed", "--no-build-isolation", *what], python.parent)


def probe(python: Path, cwd: Path) -> tuple[dict[str, str], list[str]]:
    asked = json.dumps([sorted(packages_in(ROOT)), NOT_TOP_LEVEL])
    places, leaked = json.loads(run([python, "-c", PROBE, asked], cwd).splitlines()[-1])
    return places, leaked


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("sources") / "project"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCES, symlinks=True)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path) -> Path:
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", sources / "dist"], sources)
    (built,) = (sources / "dist").glob("*.whl")
    return built


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_holds_only_altprop(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in contents(wheel)}
    assert tops == {"altprop", f"altprop-{PROJECT['project']['version']}.dist-info"}


def test_wheel_holds_every_module(wheel: Path) -> None:
    expected = set()
    for name, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            expected.add("/".join([*name.split("."), path.relative_to(ROOT / folder).as_posix()]))
    found = {name for name in contents(wheel) if name.endswith(".py")}
    assert found == expected


def test_wheel_holds_type_marker_licence_and_command(wheel: Path) -> None:
    names = contents(wheel)
    assert "altprop/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "altprop = altprop.command:main" in entry


def test_wheel_holds_what_pages_are_made_of(wheel: Path) -> None:
    assets = {name.rpartition("/")[2] for name in contents(wheel) if "/drawing/assets/" in name}
    assert assets == {"cytoscape.min.js", "LICENSE.cytoscape", "inspector.js", "inspector.css", "inspector.html"}


def test_sdist_builds_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    """Who has the source archive alone gets the same package."""
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path], sources)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "again"], unpacked)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert sorted(contents(again)) == sorted(contents(wheel))


def test_release_papers_say_the_same_version() -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version
    assert citation["license"] == PROJECT["project"]["license"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    for template in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert {"name", "description", "body"} <= set(yaml.safe_load(template.read_text("utf-8")))


def test_new_subfolder_is_packaged(tmp_path: Path) -> None:
    """A subpackage needs no entry anywhere, and never becomes a top-level package."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in (*FOLDERS.values(), "passes/novel", "passes/novel/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    for link in INNER:
        (tmp_path / "altprop" / link).symlink_to(Path("..", link))
    (tmp_path / "README.md").touch()
    (tmp_path / "LICENSE").touch()
    show = "from setuptools import setup; print(*setup(script_args=['--quiet', 'check']).packages)"
    found = set(run([sys.executable, "-c", show], tmp_path).split())
    assert found == {*FOLDERS, "altprop.passes.novel", "altprop.passes.novel.deep"}


@pytest.mark.parametrize("folder", INNER)
def test_folders_are_linked_into_the_package(folder: str) -> None:
    """Editors, type checkers and an editable install find `altprop.ir` where they look for it."""
    link = ROOT / "altprop" / folder
    assert link.is_symlink(), f"altprop/{folder} must be a link to ../{folder}: git checkout altprop/{folder}"
    assert link.resolve() == ROOT / folder


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without `__init__.py` would stay out of the wheel in silence."""
    folders = {path.parent for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")}
    bare = sorted(str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists())
    assert not bare, f"without __init__.py: {bare}"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("clean") / "environment"
    with processor_time.shared():
        install(python_in(folder), wheel)
    return folder


def test_wheel_installs_and_imports(environment: Path, tmp_path: Path) -> None:
    places, leaked = probe(environment / "bin" / "python", tmp_path)
    assert leaked == []
    outside = [place for place in places.values() if not Path(place).is_relative_to(environment)]
    assert not outside, "these were imported from elsewhere than the installed wheel"


@pytest.mark.full
def test_editable_install_imports_from_the_sources(sources: Path, wheel: Path, tmp_path: Path) -> None:
    python = python_in(tmp_path / "environment")
    install(python, "--editable", sources)
    places, leaked = probe(python, tmp_path)
    assert leaked == []
    assert Path(places["altprop.ir"]) == sources / "altprop" / "ir" / "__init__.py"
    assert all(Path(place).is_relative_to(sources) for place in places.values())
    modules = set(json.loads(run([python, "-c", LISTING], tmp_path).splitlines()[-1]))
    held = [name.removesuffix(".py").removesuffix("/__init__") for name in contents(wheel) if name.endswith(".py")]
    assert modules | {"altprop"} == {name.replace("/", ".") for name in held}, "the wheel holds others"


@pytest.mark.full
def test_command_is_installed(environment: Path, tmp_path: Path) -> None:
    shown = run([environment / "bin" / "altprop", "--help"], tmp_path)
    assert "examine" in shown


def test_version_is_written_the_same_twice() -> None:
    assert altprop.__version__ == PROJECT["project"]["version"]
