"""One compilation at a time in a process.

torch traces with modes and patches of which a process has one set, and so does altprop. Two traces at once would read
each other's. So whatever traces holds one lock; a thread that compiles inside of a compilation goes on.
"""

import contextlib
import threading
from collections.abc import Iterator

_LOCK = threading.RLock()
_OWNERS: list[int] = []


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits until no other thread compiles, and keeps others waiting meanwhile."""
    with _LOCK:
        _OWNERS.append(threading.get_ident())
        try:
            yield
        finally:
            _OWNERS.pop()


def compiles_here() -> bool:
    """Whether this thread is the one that compiles: a patch of torch counts for it alone."""
    return threading.get_ident() in _OWNERS
