"""The latest batches, kept for subscribers who come back: bounded by count, by bytes and by age.

A batch is stored before it is announced, so whoever was told of a sequence can resume from it.
"""

from collections import deque
from itertools import islice

from oracle_hub.core.hub import Batch

BYTES_PER_BATCH, BYTES_PER_DECISION, BYTES_PER_INPUT = 200, 500, 450
"""Upper estimates of the resident size of a batch and its parts, the strings that they share not counted."""


def batch_size_bytes(batch: Batch) -> int:
    """About how much memory a batch holds. Counted, not measured: measuring would cost more than deciding."""
    inputs = sum(len(decision.inputs) for decision in batch.decisions)
    return BYTES_PER_BATCH + BYTES_PER_DECISION * len(batch.decisions) + BYTES_PER_INPUT * inputs


class History:
    """A ring of consecutive batches of one epoch."""

    def __init__(
        self,
        epoch: int,
        seq: int,
        *,
        max_batches: int = 8_192,
        max_bytes: int = 32 << 20,
        max_age_us: int = 120_000_000,
    ) -> None:
        """Start empty after batch ``(epoch, seq)``."""
        self.epoch = epoch
        self.last_seq = seq
        self.size_bytes = 0
        self._floor_seq = seq
        self.max_batches = max_batches
        self._max_bytes = max_bytes
        self._max_age_us = max_age_us
        self._ring: deque[tuple[Batch, int]] = deque()

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def floor_seq(self) -> int:
        """The earliest sequence from which a resume is complete."""
        return self._floor_seq

    def append(self, batch: Batch) -> None:
        """Keep a batch and let go of what is over a bound. A batch that does not follow the last starts over."""
        if batch.epoch != self.epoch or batch.seq != self.last_seq + 1:
            self.forget()
            self.epoch = batch.epoch
            self._floor_seq = batch.seq - 1
        size = batch_size_bytes(batch)
        self._ring.append((batch, size))
        self.size_bytes += size
        self.last_seq = batch.seq
        oldest_us = batch.now_us - self._max_age_us
        while (
            len(self._ring) > self.max_batches
            or self.size_bytes > self._max_bytes
            or (self._ring and self._ring[0][0].now_us < oldest_us)
        ):
            dropped, size = self._ring.popleft()
            self.size_bytes -= size
            self._floor_seq = dropped.seq

    def forget(self) -> None:
        """Let go of everything: what was told must not be told again."""
        self._ring.clear()
        self.size_bytes = 0
        self._floor_seq = self.last_seq

    def since(self, epoch: int, seq: int) -> list[Batch] | None:
        """All batches after ``(epoch, seq)``, oldest first; None when not all of them are here. Never a part."""
        if epoch != self.epoch or not self._floor_seq <= seq <= self.last_seq:
            return None
        return [batch for batch, _ in islice(self._ring, seq - self._floor_seq, None)]
