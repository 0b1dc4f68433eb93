"""`altprop doctor`: what is installed, and what is missing for what."""

from altprop.command.options import Debug
from altprop.command.screen import results
from altprop.machine_facts import facts, missing


def doctor(debug: Debug = False) -> None:
    """Show versions and devices, and what each extra needs.

    Compilers are named too. Nothing is changed. Put what it prints into a question.
    """
    rows = facts()
    width = max(map(len, rows)) + 2
    results.print("\n".join(f"{name:{width}}{value}" for name, value in rows.items()))
    results.print("\nextras:")
    for extra, lacking in sorted(missing().items()):
        state = f"needs {', '.join(lacking)}: pip install 'altprop[{extra}]'" if lacking else "complete"
        results.print(f"  {extra:{width - 2}}{state}")
