"""One compilation at a time in a process.

torch traces with modes and patches of which a process has one set, and so does altprop. Two traces at once would read
each other's. So whatever traces holds one lock; a thread that compiles inside of a compilation goes on.
"""

import contextlib
import threading
from collections.abc import Iterator

from altprop.ir.watch import watchers

_LOCK = threading.RLock()
_OWNERS: list[int] = []


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits until no other thread compiles, and keeps others waiting meanwhile."""
    with _LOCK:
        outermost = not _OWNERS
        _OWNERS.append(threading.get_ident())
        try:
            if outermost:
                watchers.began()
            yield
        finally:
            _OWNERS.pop()
            if outermost:
                watchers.ended()


def compiles_here() -> bool:
    """Whether this thread is the one that compiles: a patch of torch counts for it alone."""
    return threading.get_ident() in _OWNERS
