"""Where commands print for people."""

import sys

from rich.console import Console

WIDE = 200


def console() -> Console:
    """The terminal; wide enough for whole addresses where the output goes to a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, emoji=False)
