"""What is wrong with the journal, for the alert ``journal_lag``. Not part of what follows from it."""

from collections.abc import Callable, Mapping

from oracle_hub.journal.writer import JournalWriter

SLOW_WRITE_US = 100_000
"""A write that took this long held up prices."""
MIN_SYNC_AGE_US = 2_000_000
TOLD_FOR_US = 600_000_000
"""For how long one segment that could not be sealed, or deleted, counts."""


class JournalWatch:
    """Looks at a writer now and then.

    Args:
        journal: the writer.
        sync_interval_us: how often it is synced.
        monotonic_us: the writer's clock.
    """

    def __init__(self, journal: JournalWriter, sync_interval_us: int, monotonic_us: Callable[[], int]) -> None:
        self._journal = journal
        self._max_sync_age_us = max(MIN_SYNC_AGE_US, 10 * sync_interval_us)
        self._monotonic_us = monotonic_us
        self._seals, self._deletions = _Failures(), _Failures()

    def troubles(self) -> Mapping[str, str | None]:
        """By what is looked at, what is wrong in words; None where all is well."""
        journal, now_us = self._journal, self._monotonic_us()
        error = journal.last_error or "no reason given"
        found: dict[str, str | None] = {"write": None, "sync": None, "slow": None, "seal": None, "delete": None}
        if journal.failing:
            found["write"] = f"it can't be written: {error}; {journal.records_lost} records lost so far"
        age_us = journal.sync_age_us
        if age_us > self._max_sync_age_us:
            found["sync"] = f"not synced for {age_us / 1e6:.1f} s: a loss of power would lose as much"
        slowest_us = journal.take_slowest_write_us()
        if slowest_us > SLOW_WRITE_US:
            found["slow"] = f"a write took {slowest_us / 1_000:.0f} ms, and prices waited for it"
        upkeep = journal.upkeep
        if self._seals.lately(upkeep.seal_failures, now_us):
            found["seal"] = f"a closed segment can't be sealed: {upkeep.seal_error}"
        if self._deletions.lately(upkeep.delete_failures, now_us):
            found["delete"] = f"old segments can't be deleted, and the disk fills up: {upkeep.delete_error}"
        return found


class _Failures:
    """A count that only grows, and when it last did."""

    def __init__(self) -> None:
        self._count = 0
        self._at_us: int | None = None

    def lately(self, count: int, now_us: int) -> bool:
        """Whether it grew a short while ago."""
        if count > self._count:
            self._count, self._at_us = count, now_us
        return self._at_us is not None and now_us - self._at_us < TOLD_FOR_US
