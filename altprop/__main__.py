"""`python -m altprop` is the command line."""

import sys

from altprop.command import main

if __name__ == "__main__":
    sys.exit(main())
