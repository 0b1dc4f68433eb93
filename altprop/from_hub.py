"""Compiles a net as it was saved in a folder or on the Hugging Face Hub; `altprop/hub.py` tells what is in it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from altprop.api import compile
from altprop.hub import CONFIG, FEEDBACK, OURS, PLAN, WEIGHTS, published
from altprop.ir.errors import CompileError
from altprop.ir.plan import WiringPlan


def from_pretrained(name: str | Path, model: nn.Module, **options: Any) -> Any:
    """Compiles a model as it was saved, by `net.save_pretrained` or `net.push_to_hub`, and loads what it learned.

    Args:
        name: a folder, or a repository of the Hub, `"me/my-net"`.
        model: a model of the same form; its parameters are overwritten.
        options: for `altprop.compile`, `example_inputs=` among them, and for downloads: `revision`, `cache_dir`,
            `token`, `force_download`, `local_files_only`.

    Returns:
        The net; with the same `optimizer=` its next step is the one that the saved net would have taken.

    Raises:
        CompileError: a file is missing, or holds another model.
    """
    return published().from_pretrained(str(name), model=model, read=read, **options)


def read(find: Callable[[str], str], model: nn.Module, options: Mapping[str, Any]) -> Any:
    """Compiles a model by files of a net, and loads its state.

    Args:
        find: from a file's name to its path.
        model: the model.
        options: for `altprop.compile`.
    """
    config = json.loads(Path(find(CONFIG)).read_text())
    defaults = {key: config[key] for key in ("seed", "loss") if key in config}
    net = compile(model, plan=WiringPlan.load(find(PLAN)), **defaults | dict(options))
    state = {f"{OURS}{key}": value for key, value in load_file(find(WEIGHTS)).items()} | load_file(find(FEEDBACK))
    known = net.state_dict()
    try:
        net.load_state_dict(known | {key: value for key, value in state.items() if key in known})
    except RuntimeError as error:
        raise CompileError(f"the files are of another model: {str(error).splitlines()[-1].strip()}") from error
    missing = [key for key in known if key not in state and key.startswith((OURS, "feedback."))]
    if missing:
        raise CompileError(f"the files are of another model: they have no {missing[0].removeprefix(OURS)}.")
    return net
