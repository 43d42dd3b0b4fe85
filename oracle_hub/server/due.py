"""Who may be told something from when on, and in which turn. Many become due at once: one batch made them wait."""

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

SLICE_US = 1_000
"""Those who are served one by one are served for so long before anything else gets its turn."""
BEATS_OF_ONE = 4
"""So many subscriptions of one client get their heartbeats in one go: each may be of thousands of feeds."""


class Due(Generic[T]):
    """Entries by time, each of a time at once."""

    def __init__(self) -> None:
        self._times: list[int] = []
        """A heap of the keys of ``_entries``."""
        self._entries: dict[int, dict[T, None]] = {}

    @property
    def next_us(self) -> int | None:
        """The earliest time that somebody waits for; None when nobody waits."""
        return self._times[0] if self._times else None

    def add(self, due_us: int, entry: T) -> None:
        """From ``due_us`` on, :meth:`pop` gives this."""
        entries = self._entries.get(due_us)
        if entries is None:
            entries = self._entries[due_us] = {}
            heapq.heappush(self._times, due_us)
        entries[entry] = None

    def discard(self, due_us: int, entry: T) -> None:
        """It is not here any more, if it was to be due then."""
        self._entries.get(due_us, {}).pop(entry, None)

    def pop(self, now_us: int) -> list[T]:
        """All that are due, in the order of their times, and are not here any more."""
        due: list[T] = []
        while self._times and self._times[0] <= now_us:
            due += self._entries.pop(heapq.heappop(self._times))
        return due


class Turns(Generic[T]):
    """Entries that are served some at a time, each once however often it was added meanwhile."""

    def __init__(self) -> None:
        self._entries: OrderedDict[T, None] = OrderedDict()
        self.as_of_us: int | None = None
        """The instant that all of them are told things as of, since they share what is encoded. None: of their turn."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, entries: Iterable[T]) -> None:
        """Behind all that are here."""
        self._entries.update(dict.fromkeys(entries))

    def discard(self, entry: T) -> None:
        """Its turn does not come any more, if it is here."""
        self._entries.pop(entry, None)

    def next(self) -> T | None:
        """Who has waited longest, and is not here any more. None: nobody waits."""
        return self._entries.popitem(last=False)[0] if self._entries else None
