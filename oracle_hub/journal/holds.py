"""Counting alerts over a history without telling any: conditions with hold times, fed with their changes alone."""

from enum import IntEnum

import msgspec


class HoldTimes(msgspec.Struct, frozen=True):
    """How a kind of alert behaves in time."""

    on_us: int
    """For how long the condition must last before it is told."""
    off_us: int
    """For how long it must be over before the end is told; what returns within is the same alert."""
    grid_us: int = 0
    """The end of ``on_us`` is put off to the next multiple of this; 0: not at all."""


class Level(IntEnum):
    """What a detector says of a condition."""

    RIGHT = 0
    WRONG = 1
    BETWEEN = 2
    """Between the levels of leaving and entering: what is open stays open, what is pending is over."""


class _Phase(IntEnum):
    OVER = 0
    PENDING = 1
    OPEN = 2
    CLOSING = 3


class Held:
    """One condition over time. Deadlines happen at their own instant, before what is told at that instant."""

    __slots__ = ("_due_us", "_phase", "_times", "count")

    def __init__(self, times: HoldTimes) -> None:
        self.count = 0
        """How often it lasted long enough to be told."""
        self._times = times
        self._phase = _Phase.OVER
        self._due_us = 0

    @property
    def quiet(self) -> bool:
        """Nothing pending and nothing open: as long as nothing is wrong there is nothing to say."""
        return self._phase is _Phase.OVER

    def pass_time(self, now_us: int) -> None:
        """Let what is due happen."""
        if self._phase is _Phase.PENDING and self._due_us <= now_us:
            self._phase = _Phase.OPEN
            self.count += 1
        elif self._phase is _Phase.CLOSING and self._due_us <= now_us:
            self._phase = _Phase.OVER

    def see(self, level: int, now_us: int) -> None:
        """Take a change of level; instants do not go back."""
        self.pass_time(now_us)
        phase, times = self._phase, self._times
        if phase is _Phase.OVER and level == Level.WRONG:
            due_us = now_us + times.on_us
            self._phase = _Phase.PENDING
            self._due_us = -(-due_us // times.grid_us) * times.grid_us if times.grid_us else due_us
            self.pass_time(now_us)
        elif phase is _Phase.PENDING and level != Level.WRONG:
            self._phase = _Phase.OVER
        elif phase is _Phase.OPEN and level == Level.RIGHT:
            self._phase, self._due_us = _Phase.CLOSING, now_us + times.off_us
        elif phase is _Phase.CLOSING and level == Level.WRONG:
            self._phase = _Phase.OPEN
