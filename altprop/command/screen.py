"""What the commands write on."""

from rich.console import Console

from altprop.terminal import console

# Results, to be piped into a file as they are.
results = Console(soft_wrap=True, highlight=False, markup=False)
# Progress, notes and errors.
notes = console


class CommandError(Exception):
    """A command that cannot do its work. The message is one sentence for the user."""


def fail(sentence: str, status: int = 1) -> int:
    """Print an error's sentence and return the exit status."""
    notes.print(f"altprop: {sentence}", style="red", markup=False, soft_wrap=True)
    return status


def note(sentence: str) -> None:
    """Print something that the user should know."""
    notes.print(sentence, markup=False, soft_wrap=True)
