"""The command line, `altprop`.

A command checks what it is given, calls the library, and prints what came out. Results go to standard
output; progress, notes and errors go to standard error. What fails ends in one sentence and a status other
than 0: 2 for a command line that cannot be read, 130 for a stop by the keyboard, 1 for everything else.
`--debug` shows the traceback.
"""

from altprop.command.app import main

__all__ = ["main"]
