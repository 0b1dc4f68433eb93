"""What of this machine and its Python concerns altprop: versions, devices, compilers, and what extras lack."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator

import torch

from altprop.counted import counted

PACKAGES = ("torch", "numpy", "networkx", "igraph", "onnx", "onnxruntime", "transformers", "lightning")


def facts() -> dict[str, str]:
    """Returns facts by name, in the order in which a person asks for them."""
    return dict(_facts())


def _facts() -> Iterator[tuple[str, str]]:
    import altprop

    yield "altprop", f"{altprop.__version__}"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    for package in PACKAGES:
        if (version := version_of(package)) is not None:
            yield package, version
    yield (
        "processor",
        f"{counted(os.cpu_count() or 1, 'core')}, {counted(torch.get_num_threads(), 'thread')}, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    )
    yield "GPU", _gpu()
    yield "kernels", _kernels()
    yield "C++ compiler", _compiler()
    yield "chromium", next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "none")


def version_of(package: str) -> str | None:
    """The version of a package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)}; CUDA {torch.version.cuda}"
    if torch.backends.mps.is_available():
        return "Apple's, by torch's mps"
    return "none that torch can use"


def _kernels() -> str:
    """Libraries behind torch's products and convolutions, and Triton, which `backend="inductor"` wants on a GPU."""
    there = {
        "oneDNN": torch.backends.mkldnn.is_available(),
        "MKL": torch.backends.mkl.is_available(),
        "cuDNN": torch.backends.cudnn.is_available(),
        "Triton": importlib.util.find_spec("triton") is not None,
    }
    return ", ".join(name for name, is_there in there.items() if is_there) or "torch's own alone"


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    return found or 'none: backend="inductor" needs one'


def missing() -> dict[str, list[str]]:
    """Returns by extra what it needs and is not installed; empty lists for those that are whole."""
    found: dict[str, list[str]] = {}
    try:
        wanted = importlib.metadata.requires("altprop") or []
    except importlib.metadata.PackageNotFoundError:
        return found
    for line in wanted:
        match = re.fullmatch(r"([\w.-]+)[^;]*;.*extra\s*==\s*[\"'](\w+)[\"'].*", line)
        if match and match[2] != "all":
            lacking = found.setdefault(match[2], [])
            if version_of(match[1]) is None:
                lacking.append(match[1])
    return found
