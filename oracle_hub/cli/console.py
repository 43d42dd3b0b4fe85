"""Where commands print for people."""

import sys

from rich.console import Console

WIDE = 200


class _Output(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command line has one answer to it, whoever wrote


def console() -> Console:
    """The terminal; wide enough for whole addresses where the output goes to a file or pipe."""
    return _Output(width=None if sys.stdout.isatty() else WIDE, highlight=False, emoji=False)
