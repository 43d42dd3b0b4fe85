"""How far the hub's clock is from ours, between two bounds (docs/adr/0011-client-clock-offset.md). Pure."""

DRIFT_PPM = 100
"""How fast two monotonic clocks may part: the bounds give way by so much, and no stall can make an old frame young."""
STEP_TOLERANCE_US = 50_000
"""Differences below this are no step of the hub's clock."""


class ClockOffset:
    """Bounds of ``our monotonic clock - the hub's clock``, in µs, for one connection.

    A message that was sent at ``s`` and received at ``r`` shows that the offset is at most ``r - s``: the smallest of
    these is the upper bound. A request that left us at ``a`` and reached the hub at ``b`` shows that it is at least
    ``a - b``. They are apart by the shortest way there and back.
    """

    def __init__(self) -> None:
        self._high_us: int | None = None
        self._low_us: int | None = None
        self._high_at_us = 0
        self._low_at_us = 0
        self._last_sent_us: int | None = None

    def heard(self, sent_us: int, received_us: int) -> bool:
        """Take in a message. False: the hub's clock was stepped, and nothing that is known of it holds any more."""
        before_us, self._last_sent_us = self._last_sent_us, sent_us
        if before_us is not None and sent_us < before_us - STEP_TOLERANCE_US:
            return False
        sample_us = received_us - sent_us
        low_us = self.low_us(received_us)
        if low_us is not None and sample_us < low_us - STEP_TOLERANCE_US:
            return False
        high_us = self.high_us(received_us)
        if high_us is None or sample_us <= high_us:
            self._high_us, self._high_at_us = sample_us, received_us
        return True

    def answered(self, asked_us: int, reached_us: int, received_us: int) -> None:
        """Take in that a request left at ``asked_us`` and reached the hub at ``reached_us``; heard ``received_us``."""
        sample_us = asked_us - reached_us - _drift(received_us - asked_us)
        low_us = self.low_us(received_us)
        if low_us is None or sample_us >= low_us:
            self._low_us, self._low_at_us = sample_us, received_us

    def high_us(self, now_us: int) -> int | None:
        """Upper bound of the offset."""
        return None if self._high_us is None else self._high_us + _drift(now_us - self._high_at_us)

    def low_us(self, now_us: int) -> int | None:
        """Lower bound of the offset."""
        return None if self._low_us is None else self._low_us - _drift(now_us - self._low_at_us)

    def latest_us(self, now_us: int) -> int | None:
        """The latest that the hub's clock can show now: what leases are judged by. None before any message."""
        bounds = [bound for bound in (self.low_us(now_us), self.high_us(now_us)) if bound is not None]
        return now_us - min(bounds) if bounds else None

    def waited_us(self, now_us: int) -> int:
        """For how long, beyond the shortest way, the newest message that was heard has been under way or old."""
        high_us = self.high_us(now_us)
        if high_us is None or self._last_sent_us is None:
            return 0
        return max(0, now_us - high_us - self._last_sent_us)


def _drift(elapsed_us: int) -> int:
    return max(0, elapsed_us) * DRIFT_PPM // 1_000_000
