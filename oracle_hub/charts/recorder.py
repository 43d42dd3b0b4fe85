"""The subscriber: every decision of the hub, once, into the newest state, the bars and the store.

It resumes where the store stopped. What the hub can't replay, because it is another one or its memory is shorter, is
recorded as a gap; what is told twice is told apart by the builder. Nothing here waits for the disk.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from oracle_hub.charts.bars import Bar, Builder
from oracle_hub.charts.live import FeedInfo, Live
from oracle_hub.charts.points import Point, point_from_entry
from oracle_hub.charts.resolutions import Resolution
from oracle_hub.charts.store import Store
from oracle_hub.charts.store_reads import Position
from oracle_hub.charts.writing import Writer
from oracle_hub.client import Prices, Taken, connect
from oracle_hub.client.prices import boot_time_us
from oracle_hub.errors import StreamError
from oracle_hub.stream.messages import Hello, Resume

log = logging.getLogger(__name__)

TAKE_LIMIT = 4_096
HARVEST_INTERVAL_S = 0.2
"""How long a final bar waits at most before it is told and written."""
WATERMARK_INTERVAL_US = 5_000_000
"""How often the store learns how far it was heard while nothing happens."""
REFUSED_RETRY_S = 10.0
MAX_SAID = 32
"""So many ways to lose a hub are told, each once."""
LAST_US = 2**62

BarsTap: TypeAlias = Callable[[Sequence[Bar]], None]


def hub_url(stream_url: str, path: str) -> str:
    """Another path of a hub, with its query, from the address of its stream."""
    parts = urlsplit(stream_url)
    scheme = "https" if parts.scheme == "wss" else "http"
    return urlunsplit((scheme, parts.netloc, parts.path.removesuffix("/v1/stream"), "", "")) + path


class Recorder:
    """Follows a hub, one of several where there are several. ``run`` is its task; it ends when it is cancelled."""

    def __init__(
        self,
        hub: str | Sequence[str],
        store: Store,
        live: Live,
        *,
        headers: Mapping[str, str] | None = None,
        clock_us: Callable[[], int] = boot_time_us,
    ) -> None:
        self.hubs = (hub,) if isinstance(hub, str) else tuple(hub)
        """Addresses of the streams of hubs."""
        self.headers = dict(headers or {})
        """Sent to the hub: a token, for one. Never printed."""
        self._clock_us = clock_us
        self._store = store
        self._live = live
        self._builder: Builder | None = None
        self._writer: Writer | None = None
        self._position: Position | None = None
        self._current: Position | None = None  # of the last update, whose batch may not be whole yet
        self._watermark_put_us = 0
        self._hello: Hello | None = None
        self._taps: list[BarsTap] = []
        self._ticks: list[Callable[[], None]] = []
        self.gaps = 0
        """How often decisions were missed for good."""

    @property
    def hub(self) -> str:
        """The one that is followed, or was last; before that the first."""
        url = self._live.status.url
        return url if url in self.hubs else self.hubs[0]

    def hub_url(self, path: str) -> str:
        """Another path of the hub."""
        return hub_url(self.hub, path)

    @property
    def builder(self) -> Builder | None:
        """Where open bars are; None before the first word of a hub, where nothing was stored."""
        return self._builder

    @property
    def writer(self) -> Writer | None:
        """What writes; None as long as there is nothing to write."""
        return self._writer

    def tap(self, take: BarsTap) -> None:
        """Have every final bar told to ``take``; of one feed and resolution ascending, each once."""
        self._taps.append(take)

    def on_tick(self, call: Callable[[], None]) -> None:
        """Have this called a few times a second, whether there is news or not."""
        self._ticks.append(call)

    def tick(self) -> None:
        """Time has gone on: tell and write what is final now, and call who wants to be called."""
        self.harvest()
        for call in self._ticks:
            call()

    def restore(self) -> None:
        """Read where the store stopped. Touches the disk: to be called on a thread, before ``run``.

        Raises:
            StoreError: it cannot be read.
        """
        store = self._store
        last = (store.point_at(feed, decided_us=LAST_US) for feed in store.feeds())
        points = [point for point in last if point is not None]
        self._position = store.position()
        self._live.restore(points, self._position)
        for feed in store.feeds():
            if self._live.point(feed) is None and (bars := store.last_bars(feed, Resolution.M1, LAST_US, 1)):
                self._live.remember(FeedInfo(feed, bars[0].expo))  # imported: there is history, and no decision
        if store.watermark_us() is not None:
            self._builder = store.resume_builder(0)

    async def run(self) -> None:
        """Follow the hub, and write, until cancelled."""
        if self._builder is not None:
            self._begin_writing(self._builder)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="charts hub")
            tasks.create_task(self._keep_harvesting(), name="charts bars")
            try:
                while True:
                    await self._follow()
            finally:
                await self._finish()

    async def _follow(self) -> None:
        """One subscription, over as many connections as it takes; it ends when the hub refuses it."""
        at = self._position
        turned = self._live.turned
        prices = connect(
            self.hubs,
            ["*"],
            mode="all",
            detail="full",
            resume="first" if at is None else Resume(at.epoch, at.seq, at.instance),
            on_live=turned,
            on_none=turned,
            headers=self.headers,
            clock_us=self._clock_us,
            wait=False,
        )
        self._live.attach(prices)
        try:
            async with prices:
                while (taken := await prices.take(TAKE_LIMIT)) is not None:
                    self._take(taken, prices)
        except StreamError as error:
            log.error("%s; trying again in %g s", error, REFUSED_RETRY_S)
            await asyncio.sleep(REFUSED_RETRY_S)

    def _take(self, taken: Taken, prices: Prices) -> None:
        builder = self._builder or self._begin(taken, prices.hub)
        if prices.hub is not self._hello and prices.hub is not None:
            self._hello = prices.hub
            self._live.known(prices.hub.feeds)
        lost = [one.entry.decided_us for one in taken.updates if one.lost and one.entry is not None]
        if lost and max(lost) > builder.heard_us:
            self.gaps += 1
            log.warning("decisions were missed that the hub can't replay; recorded as a gap (rebuild-bars closes it)")
            builder.gap(builder.heard_us, max(lost), "the hub could not replay it")
        accepted: list[Point] = []
        for update in taken.updates:
            if update.entry is None:
                continue
            at = Position(update.instance, update.epoch, update.seq)
            if at != self._current:
                self._position, self._current = self._current or self._position, at
            point = point_from_entry(update.entry, update.instance, update.epoch, update.seq)
            if update.entry.inputs:
                self._live.heard_inputs(point.feed, update.entry.inputs)
            if builder.add(point):
                accepted.append(point)
        if len(taken.updates) < TAKE_LIMIT and self._current is not None:
            self._position = self._current  # nothing of its batch is still to come
        if taken.heard_us is not None:
            builder.watermark(taken.heard_us)
        self._live.take(accepted, taken.heard_us, lost=bool(lost))

    def _begin(self, taken: Taken, hub: Hello | None) -> Builder:
        """The first word for an empty store."""
        first_us = min((one.entry.decided_us for one in taken.updates if one.entry is not None), default=None)
        # Where the first run of a hub is told from its first sequence on, nothing was decided before.
        first = taken.updates[0] if taken.updates else None
        whole = first is not None and first.replayed and hub is not None and first.epoch == hub.first_epoch
        begin_us = (None if whole else taken.heard_us) or first_us or self._live.now_us()
        self._builder = self._store.resume_builder(begin_us, first=whole)
        self._begin_writing(self._builder)
        return self._builder

    def _begin_writing(self, builder: Builder) -> None:
        self._writer = Writer(self._store, builder)
        self._watermark_put_us = builder.watermark_us

    async def _keep_harvesting(self) -> None:
        """Tell and write final bars a few times a second."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(HARVEST_INTERVAL_S)
                if self._writer is not None and writing is None:
                    writing = asyncio.create_task(self._writer.run(), name="charts writer")
                if writing is not None and writing.done():
                    writing.result()
                self.tick()
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.wait([writing])

    def harvest(self) -> None:
        """Tell and write what is final now."""
        builder, writer = self._builder, self._writer
        if builder is None or writer is None:
            return
        harvest = builder.drain()
        overdue = harvest.watermark_us - self._watermark_put_us >= WATERMARK_INTERVAL_US
        if harvest.empty and not overdue:
            return
        self._watermark_put_us = harvest.watermark_us
        writer.put(harvest, self._position)
        if harvest.bars:
            for take in self._taps:
                take(harvest.bars)

    async def close(self) -> None:
        """Let the thread that writes end what it does. To be called after :meth:`run`, before the store is closed."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def _finish(self) -> None:
        """Write the rest. Called when everything else has been cancelled."""
        self.harvest()
        if self._writer is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._writer.flush())

    async def _watch(self) -> None:
        """Say once when the hub is not there, and once when it is again; and once of each other way to lose it."""
        told: str | None = None  # the hub that was said to be followed; empty: that there is none
        said: set[str | None] = {None}
        while True:
            status = self._live.status
            if status.connected:
                if status.last_error not in said and len(said) < MAX_SAID:
                    said.add(status.last_error)
                    if told or (told is None and self._live.connections > 1):  # nobody looked while it was away
                        log.warning("lost the hub for a moment: %s", status.last_error)
                if status.url is not None and status.url != told:
                    marked = " SIMULATED: not the market." if status.simulated else ""
                    log.info("following the hub at %s (instance %s).%s", status.url, status.instance, marked)
                    told = status.url
            elif told != "" and (status.last_error or told):
                why = status.last_error or f"{', '.join(self.hubs)}: no answer yet"
                log.warning("no hub at %s; trying on, and serving history meanwhile", why)
                told = ""
            await asyncio.sleep(0.5)
