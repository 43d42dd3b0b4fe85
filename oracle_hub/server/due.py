"""Who may be told something from when on. Many become due at one time, since one batch made them wait."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Due(Generic[T]):
    """Entries by time, each of a time at once."""

    def __init__(self) -> None:
        self._times: list[int] = []
        """A heap of the keys of ``_entries``."""
        self._entries: dict[int, list[T]] = {}

    @property
    def next_us(self) -> int | None:
        """The earliest time that somebody waits for; None when nobody waits."""
        return self._times[0] if self._times else None

    def add(self, due_us: int, entry: T) -> None:
        """From ``due_us`` on, :meth:`pop` gives this."""
        entries = self._entries.get(due_us)
        if entries is None:
            entries = self._entries[due_us] = []
            heapq.heappush(self._times, due_us)
        entries.append(entry)

    def pop(self, now_us: int) -> list[T]:
        """All that are due, in the order of their times, and are not here any more."""
        due: list[T] = []
        while self._times and self._times[0] <= now_us:
            due += self._entries.pop(heapq.heappop(self._times))
        return due
