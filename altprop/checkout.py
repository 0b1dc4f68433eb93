"""Says so where the folders of the library are missing: they are links, which a checkout may lack."""

from pathlib import Path

FOLDERS = ("ir", "rules", "passes", "compiler", "runtime")


def check(package: Path) -> None:
    """Refuses a checkout whose links are plain files, as git writes them where it may make no links.

    Raises:
        ImportError: says how to get them.
    """
    plain = [name for name in FOLDERS if (package / name).is_file()]
    if plain:
        raise ImportError(
            f"{package / plain[0]} is a file where a link to a folder should be: git made no links. Run "
            '"git config core.symlinks true" and "git checkout -- altprop" (on Windows with developer mode on), or '
            "install the package: pip install altprop."
        )


check(Path(__file__).parent)
