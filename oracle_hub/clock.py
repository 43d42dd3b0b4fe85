"""Time, as an argument that somebody else brings.

Three readings matter: the wall clock (compared with the sources' publish times), the monotonic clock (which no one can
step), and *our* clock: the wall time at start carried on by the monotonic clock. Everything in the hub runs on the
last, so a stepped wall clock can't make an old price young. When the wall clock and ours part by more than the allowed
skew, :class:`AnchoredClock` says so; when the wall clock has then been steady for a while, it is the new anchor.
"""

import time
from typing import Protocol

import msgspec


class Clock(Protocol):
    """Two readings in microseconds."""

    def wall_us(self) -> int:
        """Unix time."""
        ...

    def monotonic_us(self) -> int:
        """Never goes back; its zero means nothing."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000


class ManualClock:
    """A clock that moves when told to: for tests and replay."""

    def __init__(self, wall_us: int = 1_760_000_000_000_000, monotonic_us: int = 0) -> None:
        self._wall_us = wall_us
        self._monotonic_us = monotonic_us

    def wall_us(self) -> int:
        return self._wall_us

    def monotonic_us(self) -> int:
        return self._monotonic_us

    def advance(self, us: int) -> None:
        """Let time pass on both clocks."""
        self._wall_us += us
        self._monotonic_us += us

    def step_wall(self, us: int) -> None:
        """Step the wall clock alone, as an operator or a bad NTP server does."""
        self._wall_us += us


class ClockState(msgspec.Struct, frozen=True):
    """What one look at both clocks showed."""

    skew_us: int
    """Wall clock minus ours."""
    skewed: bool
    reanchored: bool
    """Our clock was set to the wall clock just now: ages held from before mean nothing any more."""


class AnchoredClock:
    """The wall time at start, carried by the monotonic clock.

    Args:
        max_skew_us: how far the wall clock may part from ours.
        reanchor_after_us: how long the wall clock must have been steady (its offset within ``max_skew_us``) after it
            parted, before it becomes the new anchor.
    """

    def __init__(self, clock: Clock, *, max_skew_us: int = 2_000_000, reanchor_after_us: int = 5_000_000) -> None:
        self.clock = clock
        self.max_skew_us = max_skew_us
        self.reanchor_after_us = reanchor_after_us
        self._offset_us = clock.wall_us() - clock.monotonic_us()
        self._parted_at_us: int | None = None
        self._parted_skew_us = 0

    @property
    def offset_us(self) -> int:
        """Our clock minus the monotonic clock: all that another process of this machine needs to have our clock."""
        return self._offset_us

    def now_us(self) -> int:
        """Our clock, in unix microseconds."""
        return self.clock.monotonic_us() + self._offset_us

    def check(self) -> ClockState:
        """Compare the clocks. To be called a few times a second."""
        monotonic_us = self.clock.monotonic_us()
        skew_us = self.clock.wall_us() - monotonic_us - self._offset_us
        if abs(skew_us) <= self.max_skew_us:
            self._parted_at_us = None
            return ClockState(skew_us, skewed=False, reanchored=False)
        if self._parted_at_us is None or abs(skew_us - self._parted_skew_us) > self.max_skew_us:
            self._parted_at_us = monotonic_us
            self._parted_skew_us = skew_us
        elif monotonic_us - self._parted_at_us >= self.reanchor_after_us:
            self._offset_us += skew_us
            self._parted_at_us = None
            return ClockState(skew_us, skewed=False, reanchored=True)
        return ClockState(skew_us, skewed=True, reanchored=False)
