"""Nets on the Hugging Face Hub, through the mixin of `huggingface_hub`; install the extra `hub` for it.

A net is written as a folder:

| file | holds |
|---|---|
| `model.safetensors` | the model's own parameters and buffers, under its own names: torch alone can load it |
| `altprop.safetensors` | feedback, and the state of the optimizer inside |
| `plan.json` | the wiring plan |
| `config.json` | the seed of the feedback, the loss's name, and the version that wrote it |
| `README.md` | the model card, with the table of `net.explain()` |

The folder holds no code: `from_pretrained` asks for the model.
"""

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from altprop.ir.errors import CompileError
from altprop.ir.plan import WiringPlan

WEIGHTS, FEEDBACK, PLAN, CONFIG = "model.safetensors", "altprop.safetensors", "plan.json", "config.json"
_OURS = "model."
CARD = """---
{{ card_data }}
---

# {{ title }}

A {{ model }} that learned by local rules ({{ rules }}) in the place of backpropagation, with
[altprop](https://pypi.org/project/altprop/) {{ version }}.

`model.safetensors` holds its weights under the model's own names, so that it runs without altprop:

```python
model.load_state_dict(safetensors.torch.load_file("model.safetensors"), strict={{ strict }})
```

To train it on by the same rules, with the same feedback:

```python
import altprop

net = altprop.from_pretrained("{{ name }}", model, example_inputs=(inputs,))
```

## What moved each parameter

```
{{ table }}
```
"""


def save_pretrained(net: Any, folder: str | Path, **options: Any) -> Path:
    """Writes a net as a folder that `from_pretrained` reads.

    Args:
        net: a compiled net.
        folder: where; it is made if need be.
        options: for `huggingface_hub.ModelHubMixin.save_pretrained`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    kwargs = {"net": net, "name": folder.name, **options.pop("model_card_kwargs", {})}
    _published()(net).save_pretrained(folder, model_card_kwargs=kwargs, **options)
    return folder


def push_to_hub(net: Any, name: str, **options: Any) -> str:
    """Uploads a net, with a model card.

    Args:
        net: a compiled net.
        name: the repository, `"me/my-net"`.
        options: for `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private=True`.

    Returns:
        The address of the commit.
    """
    kwargs = {"net": net, "name": name, **options.pop("model_card_kwargs", {})}
    return str(_published()(net).push_to_hub(name, model_card_kwargs=kwargs, **options))


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
    return _published().from_pretrained(str(name), model=model, **options)


def write(net: Any, folder: Path) -> None:
    """Writes everything but the model card."""
    state = {key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    state = {key: value.detach().contiguous() for key, value in state.items()}
    ours = {key.removeprefix(_OURS): value for key, value in state.items() if key.startswith(_OURS)}
    save_file(ours, folder / WEIGHTS, metadata={"format": "pt"})
    rest = {key: value for key, value in state.items() if not key.startswith(_OURS)}
    save_file(rest, folder / FEEDBACK, metadata={"format": "pt"})
    net.plan.save(folder / PLAN)
    config = {"library": "altprop", "version": _version(), "seed": net.feedback.seed}
    loss = net.compilations.compiler.options.loss
    if loss.is_named:
        config["loss"] = loss.name
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read(find: Any, model: nn.Module, options: Mapping[str, Any]) -> Any:
    """Compiles a model by files of a net, and loads its state.

    Args:
        find: from a file's name to its path.
        model: the model.
        options: for `altprop.compile`.
    """
    import altprop

    config = json.loads(Path(find(CONFIG)).read_text())
    defaults = {key: config[key] for key in ("seed", "loss") if key in config}
    net = altprop.compile(model, plan=WiringPlan.load(find(PLAN)), **defaults | dict(options))
    state = {f"{_OURS}{key}": value for key, value in load_file(find(WEIGHTS)).items()} | load_file(find(FEEDBACK))
    known = net.state_dict()
    try:
        net.load_state_dict(known | {key: value for key, value in state.items() if key in known})
    except RuntimeError as error:
        raise CompileError(f"the files are of another model: {str(error).splitlines()[-1].strip()}") from error
    missing = [key for key in known if key not in state and key.startswith((_OURS, "feedback."))]
    if missing:
        raise CompileError(f"the files are of another model: they have no {missing[0].removeprefix(_OURS)}.")
    return net


@functools.cache
def _published() -> Any:
    """The class that speaks with the Hub; made when it is first needed, since its library is an extra."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CompileError("the Hugging Face Hub needs the extra `hub`: pip install 'altprop[hub]'.") from error

    # The base is known at run time alone, so its keywords cannot be checked.
    class Published(hub.ModelHubMixin, library_name="altprop", tags=["local-learning"], model_card_template=CARD):  # type: ignore[misc]
        """A net, as the Hub's mixin wants it."""

        def __init__(self, net: Any = None) -> None:
            self.net = net

        def _save_pretrained(self, save_directory: Path) -> None:
            write(self.net, save_directory)

        def generate_model_card(self, net: Any, name: str, **words: Any) -> Any:
            """The card, with the table of what moved each parameter."""
            return super().generate_model_card(**_words(net, name), **words)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, model: nn.Module, config: Any = None, **options: Any) -> Any:
            asked = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            download = {key: options.pop(key) for key in asked if key in options}

            def find(file: str) -> str:
                if not Path(model_id).is_dir():
                    return str(hub.hf_hub_download(model_id, file, **download))
                if not (Path(model_id) / file).exists():
                    raise CompileError(f"{model_id} holds no {file}: net.save_pretrained writes it.")
                return str(Path(model_id) / file)

            return read(find, model, options)

    return Published


def _words(net: Any, name: str) -> dict[str, Any]:
    rules = dict.fromkeys(str(region.rule) for region in net.plan.regions if region.rule)
    return {
        "title": name.split("/")[-1],
        "name": name,
        "model": type(net.model).__name__,
        "rules": ", ".join(rules),
        "version": _version(),
        "strict": len(net.model.state_dict()) == sum(key.startswith(_OURS) for key in net.state_dict()),
        "table": str(net.explain()),
    }


def _version() -> str:
    from altprop import __version__

    return __version__
