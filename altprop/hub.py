"""Nets on the Hugging Face Hub, through the mixin of `huggingface_hub`; install the extra `hub` for it.

A net is written as a folder:

| file | holds |
|---|---|
| `model.safetensors` | the model's own parameters and buffers, under its own names: torch alone can load it |
| `altprop.safetensors` | feedback, and the state of the optimizer inside |
| `plan.json` | the wiring plan |
| `config.json` | the seed of the feedback, the loss's name, and the version that wrote it |
| `README.md` | the model card, with the table of `net.explain()` |

The folder holds no code: `altprop.from_pretrained` (`altprop/from_hub.py`) asks for the model.
"""

import functools
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from altprop.ir.errors import CompileError
from altprop.version import VERSION

WEIGHTS, FEEDBACK, PLAN, CONFIG = "model.safetensors", "altprop.safetensors", "plan.json", "config.json"
OURS = "model."
Read = Callable[[Callable[[str], str], nn.Module, Mapping[str, Any]], Any]
"""Compiles a model by files, given what finds them by name, and options for `altprop.compile`."""
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
    published()(net).save_pretrained(folder, model_card_kwargs=kwargs, **options)
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
    return str(published()(net).push_to_hub(name, model_card_kwargs=kwargs, **options))


def write(net: Any, folder: Path) -> None:
    """Writes everything but the model card."""
    state = {key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    state = {key: value.detach().contiguous() for key, value in state.items()}
    ours = {key.removeprefix(OURS): value for key, value in state.items() if key.startswith(OURS)}
    save_file(ours, folder / WEIGHTS, metadata={"format": "pt"})
    rest = {key: value for key, value in state.items() if not key.startswith(OURS)}
    save_file(rest, folder / FEEDBACK, metadata={"format": "pt"})
    net.plan.save(folder / PLAN)
    config = {"library": "altprop", "version": VERSION, "seed": net.feedback.seed}
    loss = net.compilations.compiler.options.loss
    if loss.is_named:
        config["loss"] = loss.name
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


@functools.cache
def published() -> Any:
    """The class that speaks with the Hub; made when it is first needed, since its library is an extra."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CompileError("the Hugging Face Hub needs the extra `hub`: pip install 'altprop[hub]'.") from error

    # The base is known at run time alone, so its keywords cannot be checked.
    class Published(hub.ModelHubMixin, library_name="altprop", tags=["local-learning"], model_card_template=CARD):  # type: ignore[call-arg, name-defined]
        """A net, as the Hub's mixin wants it."""

        def __init__(self, net: Any = None) -> None:
            self.net = net

        def _save_pretrained(self, save_directory: Path) -> None:
            write(self.net, save_directory)

        def generate_model_card(self, net: Any, name: str, **words: Any) -> Any:
            """The card, with the table of what moved each parameter."""
            return super().generate_model_card(**_words(net, name), **words)

        @classmethod
        def _from_pretrained(
            cls, *, model_id: str, model: nn.Module, read: Read, config: Any = None, **options: Any
        ) -> Any:
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
        "version": VERSION,
        "strict": len(net.model.state_dict()) == sum(key.startswith(OURS) for key in net.state_dict()),
        "table": str(net.explain()),
    }
