"""What was heard, on its way to the disk: in order, by one thread, never in the way of the stream.

While the disk refuses, harvests wait and are tried again; readers see them meanwhile, since the builder keeps what is
not settled. When too much waits, the oldest is given up, counted, and recorded as a gap.
"""

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import msgspec

from oracle_hub.charts.bars import Builder, Gap, Harvest
from oracle_hub.charts.store import Store
from oracle_hub.charts.store_reads import Position
from oracle_hub.errors import StoreError

log = logging.getLogger(__name__)

FIRST_RETRY_S, MAX_RETRY_S = 0.5, 15.0
PRUNE_INTERVAL_S = 60.0
PRUNE_PAUSE_S = 0.2
MAX_WAITING_ROWS = 500_000
"""Beyond them the oldest are given up, and recorded as a gap."""


class _Waiting(msgspec.Struct, frozen=True):
    harvest: Harvest
    position: Position | None

    @property
    def rows(self) -> int:
        return len(self.harvest.points) + len(self.harvest.bars) + len(self.harvest.marks)


class Writer:
    """Writes harvests of one builder. ``put`` never waits; ``run`` is a task; both on the event loop."""

    def __init__(self, store: Store, builder: Builder) -> None:
        self._store = store
        self._builder = builder
        self._waiting: deque[_Waiting] = deque()
        self._given_up: list[Gap] = []
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="charts write")
        self._written_until_us = builder.watermark_us
        self.error: str | None = None
        """Why the last write failed; None while all is well."""
        self.rows_written = 0
        self.rows_lost = 0
        self.failures = 0

    @property
    def rows_waiting(self) -> int:
        """Rows that are not on disk yet."""
        return sum(waiting.rows for waiting in self._waiting)

    def put(self, harvest: Harvest, position: Position | None) -> None:
        """Have this written, after everything before it."""
        self._waiting.append(_Waiting(harvest, position))
        rows = self.rows_waiting
        while rows > MAX_WAITING_ROWS and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            rows -= oldest.rows
            self.rows_lost += oldest.rows
            until_us = oldest.harvest.watermark_us
            self._given_up.append(Gap(self._written_until_us, until_us, "the store could not be written"))
            self._written_until_us = until_us
            self._builder.settle(oldest.harvest)
        self._news.set()

    async def run(self) -> None:
        """Write what is put, until cancelled."""
        retry_s = FIRST_RETRY_S
        loop = asyncio.get_running_loop()
        prune_at_s = loop.time() + PRUNE_PAUSE_S
        while True:
            if not self._waiting:
                self._news.clear()
                try:
                    async with asyncio.timeout_at(prune_at_s):
                        await self._news.wait()
                except TimeoutError:
                    prune_at_s = loop.time() + (PRUNE_PAUSE_S if await self._prune() else PRUNE_INTERVAL_S)
                continue
            if await self._write():
                retry_s = FIRST_RETRY_S
            else:
                await asyncio.sleep(retry_s)
                retry_s = min(MAX_RETRY_S, 2 * retry_s)

    async def flush(self) -> None:
        """Write what waits; once, whether the disk takes it or not."""
        if self._waiting:
            await self._write()

    async def _write(self) -> bool:
        """One transaction of all that waits now. False: the disk refused it."""
        batch = tuple(self._waiting)
        whole = _merged(batch, self._given_up)
        position = next((one.position for one in reversed(batch) if one.position is not None), None)
        n_gaps = len(self._given_up)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._store.write_harvest, whole, position)
        except StoreError as error:
            self.failures += 1
            if self.error is None:
                log.error("%s. Live prices and bars go on; writing is tried again", error)
            self.error = str(error)
            return False
        if self.error is not None:
            log.warning("the store can be written again; %d rows were lost meanwhile", self.rows_lost)
            self.error = None
        del self._given_up[:n_gaps]
        written = {id(one) for one in batch}
        while self._waiting and id(self._waiting[0]) in written:
            done = self._waiting.popleft()
            self.rows_written += done.rows
            self._builder.settle(done.harvest)
        self._written_until_us = max(self._written_until_us, whole.watermark_us)
        return True

    async def _prune(self) -> bool:
        """Delete a little of what is older than its retention. True: there is more."""
        loop = asyncio.get_running_loop()
        try:
            deleted = await loop.run_in_executor(self._thread, self._store.prune, self._builder.watermark_us)
        except StoreError as error:
            log.warning("%s (while deleting what is old)", error)
            return False
        return deleted > 0

    def close(self) -> None:
        """Let the thread end what it does."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _merged(batch: tuple[_Waiting, ...], gaps: list[Gap]) -> Harvest:
    harvests = [one.harvest for one in batch]
    if len(harvests) == 1 and not gaps:
        return harvests[0]
    return Harvest(
        points=[point for one in harvests for point in one.points],
        bars=[bar for one in harvests for bar in one.bars],
        marks=[mark for one in harvests for mark in one.marks],
        gaps=[*gaps, *(gap for one in harvests for gap in one.gaps)],
        watermark_us=harvests[-1].watermark_us,
    )
