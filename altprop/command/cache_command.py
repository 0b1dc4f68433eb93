"""`altprop cache`: what compilations left for later ones."""

import time
from typing import Annotated

import typer

from altprop.command.options import Debug
from altprop.command.screen import note, results
from altprop.compiler.cache.cache_folder import VARIABLE, Folder, wanted_folder


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False,
    debug: Debug = False,
) -> None:
    """Show what the cache across processes holds, or clear it.

    ALTPROP_CACHE=DIR says where it is, ALTPROP_CACHE=off does without. Else it is in your own folder of such things.
    """
    path = wanted_folder()
    if path is None:
        results.print(f"There is no cache: {VARIABLE} is off.")
        return
    folder = Folder(path)
    entries = folder.entries()
    total = sum(size for _, size, _ in entries)
    if clear:
        folder.shrink(0)
        note(f"removed {len(entries)} compilations, {total / 2**20:.1f} MiB")
        return
    results.print(f"{path}: {len(entries)} compilations, {total / 2**20:.1f} of {folder.most / 2**20:.0f} MiB")
    for place, size, used in reversed(entries):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(used))
        results.print(f"{place.name[:12]}  {size / 2**10:8.1f} KiB  used {when}")
