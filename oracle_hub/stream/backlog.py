"""How old the oldest byte is that a subscriber was sent and its socket has not taken."""

from collections import deque

_MARK_EVERY_US = 50_000


class Backlog:
    """Remembers when how much had been sent, in marks 50 ms apart: as many as fit into the age that is allowed."""

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._state_end_bytes = 0
        self._marks: deque[tuple[int, int]] = deque()
        """(all bytes sent before, since when more were sent), oldest first; from the oldest byte that waits on."""

    def sent(self, size_bytes: int, now_us: int) -> None:
        """So many more bytes were handed over."""
        if size_bytes and (not self._marks or now_us - self._marks[-1][1] >= _MARK_EVERY_US):
            self._marks.append((self._sent_bytes, now_us))
        self._sent_bytes += size_bytes

    def state_follows(self, size_bytes: int) -> None:
        """What is sent next, so many bytes, brings a new subscription up to date: as long as the catalogue and the past
        are, whoever reads it."""
        self._state_end_bytes = self._sent_bytes + size_bytes

    def behind_bytes(self, unsent_bytes: int) -> int:
        """How much of what waits was sent after the last state, and so says that it is read slowly."""
        return min(unsent_bytes, self._sent_bytes - self._state_end_bytes)

    def age_us(self, unsent_bytes: int, now_us: int) -> int:
        """Age of the oldest byte that still waits, up to 50 ms too old; 0 when none does."""
        taken_bytes = self._sent_bytes - unsent_bytes
        if unsent_bytes <= 0:
            self._marks.clear()
        while len(self._marks) > 1 and self._marks[1][0] <= taken_bytes:
            self._marks.popleft()
        return max(0, now_us - self._marks[0][1]) if self._marks else 0
