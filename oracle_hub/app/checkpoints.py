"""When checkpoints are written: at the beginning of segments, and while prices go on.

A small state is written at once. Of a large one only the capture is; its bytes are made in the pauses of the loop, a
little at a time, and stand in the journal behind a mark of where they belong.
"""

import asyncio
import logging
from collections.abc import Iterator

from oracle_hub.app.capture import AT_ONCE, Capture
from oracle_hub.app.checkpoint import checkpoint
from oracle_hub.app.engine import Engine
from oracle_hub.clock import Clock
from oracle_hub.errors import JournalError
from oracle_hub.journal.records import Cut, RunStart, StatePart, checkpoint_head
from oracle_hub.journal.writer import JournalWriter

log = logging.getLogger(__name__)

SLICE_US = 1_000
"""So long at a time is worked on a checkpoint."""
PAUSE_S = 0.002
"""And then prices have their turn: with 4,000 feeds it is done within a second."""
PART_BYTES = 2**16


class Checkpoints:
    """Of one journal. ``interval_us`` is the least time between two of them.

    Where segments are short because there is much to write, not each of them has one: it takes time from the prices.
    """

    def __init__(self, journal: JournalWriter, clock: Clock, interval_us: int, *, slice_us: int = SLICE_US) -> None:
        self._journal = journal
        self._clock = clock
        self._interval_us = interval_us
        self._slice_us = slice_us
        self._run: RunStart | None = None
        self._done = 0
        """Number of the latest segment that needs no checkpoint: the first one begins with the run."""
        self._latest_us = 0
        self._under_way: Iterator[bytes] | None = None
        """Pieces of the payload of a checkpoint, some of them empty."""
        self._made = bytearray()
        self._parts = 0
        self._cut = Cut(0)
        self._too_short = False
        """The segment before ended sooner than its checkpoint could be written beside the prices: this one gets it at
        once."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, run: RunStart, started_us: int) -> None:
        """The run begins, and with it the first segment."""
        self._run, self._latest_us = run, started_us

    def under_way(self) -> bool:
        """Whether one is being written."""
        return self._under_way is not None

    def after_step(self, engine: Engine, now_us: int) -> None:
        """Write a checkpoint where a segment began, or begin to. It goes to disk with the next steps."""
        number = self._journal.number
        if number <= self._done:
            return
        if self._under_way is not None:
            self._segment_over()
        self._done = number
        if not self._too_short and 0 <= now_us - self._latest_us < self._interval_us:  # below 0: the clock was set back
            return
        if self._run is None:
            return
        self._latest_us = now_us
        whole, self._too_short = self._too_short or len(engine.hub.catalog.feeds) <= AT_ONCE, False
        try:
            if whole:
                self._journal.append(checkpoint(engine, self._run, now_us))
                return
            capture = Capture(engine, self._run, now_us)
            self._cut, self._parts = Cut(now_us), 0
            self._journal.append(self._cut)
        except JournalError as error:
            log.error("journal: segment %d has no checkpoint: %s", number, error)
            return
        self._under_way = _payload(capture)
        self._later()

    def go_on(self) -> None:
        """Do some of what is left; the rest follows by itself."""
        self._timer = None
        pieces = self._under_way
        if pieces is None:
            return
        if self._journal.failing:
            self._give_up("the disk refuses")
            return
        if self._journal.number != self._done:
            self._segment_over()
            return
        began_us = self._clock.monotonic_us()
        try:
            for piece in pieces:
                self._made += piece
                if len(self._made) >= PART_BYTES:
                    self._append(last=False)
                if self._clock.monotonic_us() - began_us >= self._slice_us:
                    self._later()
                    return
            self._append(last=True)
        except JournalError as error:
            self._give_up(str(error))
        self._under_way = None

    def stop(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._under_way = None
        self._made.clear()

    def _append(self, *, last: bool) -> None:
        self._journal.append(StatePart(self._cut.now_us, self._parts, last, bytes(self._made)))
        self._parts += 1
        self._made.clear()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self.go_on)

    def _segment_over(self) -> None:
        self._too_short = True
        self._give_up("it ended before its checkpoint was written")

    def _give_up(self, why: str) -> None:
        log.warning("journal: segment %d has no checkpoint: %s", self._done, why)
        self.stop()


def _payload(capture: Capture) -> Iterator[bytes]:
    for _ in capture.digested():
        yield b""
    yield checkpoint_head(capture.record)
    yield from capture.state()
