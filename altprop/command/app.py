"""The list of commands, and the one place where failures become sentences."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from altprop.command import (
    audit_command,
    bench,
    cache_command,
    doctor,
    examine_command,
    export,
    inspect,
    plan_command,
    report_command,
    repro_command,
    rules,
    schedule_command,
    train,
)
from altprop.command.screen import CommandError, fail, notes
from altprop.data import DataError
from altprop.ir.errors import CompileError
from altprop.models import ModelError
from altprop.training import TrainingError

# Their messages are written for the user as they are.
SENTENCES = (CompileError, DataError, ModelError, TrainingError, CommandError)
# Typer keeps these two classes private.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
ClickException: type[Exception] = UsageError.__bases__[0]

# Exit status of a stop by the keyboard, as shells have it; Typer gives it too.
INTERRUPTED = 130

app = typer.Typer(
    name="altprop",
    help="Compile PyTorch models into local-learning programs, look at them, and train them.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("inspect")(inspect.inspect)
app.command("plan")(plan_command.plan)
app.command("export")(export.export)
app.command("schedule")(schedule_command.schedule)
app.command("audit")(audit_command.audit)
app.command("bench")(bench.bench)
app.command("examine")(examine_command.examine)
app.command("rules")(rules.rules)
app.command("cache")(cache_command.cache)
app.command("doctor")(doctor.doctor)
app.command("report")(report_command.report)
app.command("repro")(repro_command.repro)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from altprop import __version__

        typer.echo(f"altprop {__version__}")
        raise typer.Exit


@app.callback()
def altprop(
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Show the version and exit."
    ),
    debug: bool = typer.Option(
        False, "--debug", help="Show tracebacks and torch's warnings; also after the command's name."
    ),
) -> None:
    """Compile PyTorch models into local-learning programs, look at them, and train them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: words after `altprop`; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Wherever it stands, so that nobody has to know where it belongs.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if debug:
        return _run(words)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger("torch").setLevel(logging.CRITICAL)
        return _run_safely(words)


def _run(words: list[str]) -> int:
    """Run one command; what it raises goes on."""
    try:
        status = app(args=words, prog_name="altprop", standalone_mode=False)
    except ClickException as error:
        return _misuse(error)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:
        return fail("stopped; a run goes on from its last whole epoch with --resume", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _run_safely(words: list[str]) -> int:
    """Run one command; what it raises becomes a sentence."""
    try:
        return _run(words)
    except SENTENCES as error:
        return fail(str(error))
    except BrokenPipeError:
        # The reader of a pipe has seen enough, such as `head`. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}")
    except Exception as error:
        reason = " ".join(str(error).split())
        return fail(f"unexpected {type(error).__name__}: {reason}; --debug shows where")


def _misuse(error: Exception) -> int:
    """Say in one sentence what is wrong with the command line, or show the help that was asked for."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        notes.print(context.get_help() if context else str(error), highlight=False, markup=False)
        return 2
    command = context.command_path if context else "altprop"
    # Which class click's errors have is found out above, at run time.
    sentence = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    return fail(f"{sentence[0].lower()}{sentence[1:]}; see '{command} --help'", status=2)
