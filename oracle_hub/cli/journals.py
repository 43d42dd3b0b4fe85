"""The journals that commands are given."""

from collections.abc import Sequence
from pathlib import Path

from oracle_hub.errors import JournalError
from oracle_hub.journal.reader import JournalReader, read_journal


def open_journal(paths: Sequence[Path], *, lenient: bool) -> JournalReader:
    """A journal's directory, or its segments in the order given.

    Raises:
        JournalError: one of them is not there, or holds no journal; with ``lenient`` false also at damage, as it is
            read.
    """
    for path in paths:
        if not path.exists():
            raise JournalError(f"{path}: no such file or directory")
    return read_journal(paths[0] if len(paths) == 1 else paths, strict=not lenient)
