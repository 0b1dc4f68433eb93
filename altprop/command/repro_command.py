"""`altprop repro`: the smallest part of a model that fails, as a script."""

from pathlib import Path
from typing import Annotated

import typer

from altprop.command import options
from altprop.command.choice import Choice, with_choice
from altprop.command.screen import CommandError, note
from altprop.repro import find_culprit, script
from altprop.training.user_model import is_user_model


@with_choice()
def repro(
    choice: Choice,
    plan: options.Plan = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The script to write.")] = Path("repro.py"),
) -> None:
    """Cut a model that does not compile to its smallest part.

    The smallest part that fails is written as a script. It holds the model's file, so that it runs elsewhere.

    Example: altprop repro model.py:Net --input-shape 16
    """
    if not is_user_model(choice.model):
        raise CommandError(f"repro cuts models of your own, such as model.py:Net; {choice.model} names none")
    example, given = choice.example(), choice.options(plan)
    culprit = find_culprit(example.model, example.inputs, given)
    if culprit is None:
        note(f"{choice.model} compiles; there is nothing to cut")
        return
    file, _, name = choice.model.rpartition(":")
    pairs = ", ".join(f"{key}={value!r}" for key, value in options.parse_pairs(choice.model_option or []).items())
    out.write_text(script(culprit, Path(file).expanduser().read_text("utf-8"), f"{name}({pairs})", given), "utf-8")
    where = f'its part "{culprit.path}"' if culprit.path else "the model itself"
    note(f"{where} ({type(culprit.module).__name__}) is the smallest that fails; written to {out}")
