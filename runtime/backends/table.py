"""The table of backends, by name."""

from altprop.ir.errors import CompileError
from altprop.runtime.backends.base import Backend
from altprop.runtime.backends.cudagraphs import CudaGraphs
from altprop.runtime.backends.eager import Eager
from altprop.runtime.backends.inductor import Inductor
from altprop.runtime.backends.onnxruntime import OnnxRuntime

_TABLE: dict[str, Backend] = {one.name: one for one in (Eager(), Inductor(), CudaGraphs(), OnnxRuntime())}


def register(backend: Backend) -> Backend:
    """Lets a backend be asked for by its name; returns it.

    Raises:
        CompileError: it is no backend, it has no name, or another one has its name.
    """
    if not isinstance(backend, Backend):
        raise CompileError(
            f"{backend!r} is no backend: register an object of a class made of altprop.backends.Backend."
        )
    known = _TABLE.get(backend.name)
    if not backend.name or (known is not None and type(known) is not type(backend)):
        taken = f'another backend is called "{backend.name}"' if backend.name else "a backend needs a name"
        raise CompileError(f"{type(backend).__name__} cannot be registered: {taken}.")
    _TABLE[backend.name] = backend
    return backend


def available() -> tuple[str, ...]:
    """Returns the names of all registered backends."""
    return tuple(_TABLE)


def get(backend: str | Backend) -> Backend:
    """Returns the backend of a name; a backend is its own.

    Raises:
        CompileError: there is none of this name.
    """
    if isinstance(backend, Backend):
        return backend
    if not isinstance(backend, str):
        raise CompileError(f"backend={backend!r}: give the name of a backend, or an altprop.backends.Backend.")
    if backend not in _TABLE:
        raise CompileError(f'backend="{backend}": there are {", ".join(_TABLE)}.')
    return _TABLE[backend]
