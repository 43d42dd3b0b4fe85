"""Puts checkpoints that were written in parts where they belong: at the cut that they are the state of.

A large state is written while prices go on, so its parts stand behind frames and steps that it knows nothing of. A
reader holds back what follows a cut until the last part came. Where that never came (the segment ends before, or a part
is missing) there is no checkpoint, and nothing is held back for long.
"""

from collections.abc import Iterator
from typing import Protocol, cast

from oracle_hub.errors import JournalError
from oracle_hub.journal.records import Appended, Cut, Record, StatePart, decode_checkpoint

MAX_HELD_RECORDS = 200_000
"""A checkpoint whose parts are further apart is given up: so much would have to be held in memory."""


class Counted(Protocol):
    """What counts the cuts and parts that were read."""

    @property
    def parts(self) -> int: ...


def in_place(lists: Iterator[list[Appended]], counted: Counted) -> Iterator[list[Record]]:
    """The records of one segment in the order in which they count, without cuts and parts.

    Args:
        lists: of what stands on disk, in order. What it raises comes after what it gave.
        counted: says after each list how many cuts and parts it gave; spares looking for them.
    """
    order, seen = _Order(), 0
    try:
        for records in lists:
            if counted.parts == seen:
                yield order.plain(cast("list[Record]", records))
            else:
                seen = counted.parts
                yield order.taken(records)
    except JournalError:
        yield order.released()
        raise
    yield order.released()


class _Order:
    """One cut at a time, and what is held back behind it."""

    def __init__(self) -> None:
        self._cut: Cut | None = None
        self._pieces: list[bytes] = []
        self._held: list[Record] = []

    def plain(self, records: list[Record]) -> list[Record]:
        if self._cut is None:
            return records
        self._held += records
        return self.released() if len(self._held) > MAX_HELD_RECORDS else []

    def taken(self, records: list[Appended]) -> list[Record]:
        out: list[Record] = []
        for record in records:
            if isinstance(record, Cut):
                out += self.released()
                self._cut = record
            elif isinstance(record, StatePart):
                out += self._part(record)
            elif self._cut is None:
                out.append(record)
            else:
                out += self.plain([record])
        return out

    def released(self) -> list[Record]:
        """What was held back; there is no checkpoint before it."""
        held, self._cut, self._pieces, self._held = self._held, None, [], []
        return held

    def _part(self, part: StatePart) -> list[Record]:
        if self._cut is None or part.cut_us != self._cut.now_us:
            return []
        if part.index != len(self._pieces):
            return self.released()
        self._pieces.append(part.data)
        if not part.last:
            return []
        payload = b"".join(self._pieces)
        held = self.released()
        try:
            return [decode_checkpoint(payload), *held]
        except JournalError:
            return held
