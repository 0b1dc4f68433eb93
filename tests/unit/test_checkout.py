"""A checkout whose links are plain files, as git leaves them where it makes no links."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from altprop import checkout


def plain(folder: Path) -> Path:
    package = folder / "altprop"
    package.mkdir()
    for name in checkout.FOLDERS:
        (package / name).write_text(f"../{name}")
    return package


def test_it_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r'ir is a file where a link .* "git config core.symlinks true"'):
        checkout.check(plain(tmp_path))


def test_importing_it_ends_in_that_sentence(tmp_path: Path) -> None:
    here = Path(checkout.__file__).parent
    package = plain(tmp_path)
    for name in ("__init__.py", "checkout.py"):
        (package / name).write_text((here / name).read_text("utf-8"), "utf-8")
    done = subprocess.run([sys.executable, "-c", "import altprop"], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert re.fullmatch(r"ImportError: .*altprop.ir is a file where a link to a folder should be: .*", last)


def test_one_with_links_is_as_it_should_be() -> None:
    checkout.check(Path(checkout.__file__).parent)
