"""What Hermes' doors may show: the price of a feed that holds now, or the one that was first published after a time."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from oracle_hub.charts.context import Context
from oracle_hub.charts.hermes_average import Average, average_until
from oracle_hub.charts.hermes_ids import Ids
from oracle_hub.charts.hermes_shapes import Quote, quote_now, quote_then
from oracle_hub.charts.live import Update
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US, Resolution
from oracle_hub.charts.store_reads import Reads


class Absent(msgspec.Struct, frozen=True, gc=False):
    """A feed that has no price, and why."""

    price_id: str
    feed: str
    reason: str
    """Of the hub, or of the client library: ``disconnected``, ``lease_over``."""


class Quotes:
    """Quotes of live feeds. Keeps the averages of those that were asked for."""

    def __init__(self, context: Context, ids: Ids) -> None:
        self._context = context
        self.ids = ids
        self._averages: dict[str, Average] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[str, list[Point]] = {}  # what came while an average was being read
        context.live.tap(self._take)

    @property
    def simulated(self) -> bool:
        """Whether these are no prices of the market."""
        return self._context.live.simulated is not None

    def served(self) -> dict[str, str]:
        """Ids of the hub's feeds, by feed. Those without an id can't be asked for here."""
        return self.ids.served(self._context.live.feeds)

    def sort(self, price_ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """Which of these are feeds of the hub (feed to id), and the ids that no feed has."""
        found: dict[str, str] = {}
        unknown: list[str] = []
        for price_id in price_ids:
            feed = self.ids.feed_of(price_id, self._context.live.feeds)
            if feed is None:
                unknown.append(price_id)
            else:
                found[feed] = price_id
        return found, unknown

    async def open(self, feeds: Iterable[str]) -> None:
        """Read the averages of these feeds, once; to be called before quotes of them are asked for.

        Raises:
            Refused: the store cannot be read now.
        """
        for feed in feeds:
            if feed in self._averages:
                continue
            task = self._opening.get(feed)
            if task is None:
                task = self._opening[feed] = asyncio.create_task(self._read(feed), name=f"average of {feed}")
                task.add_done_callback(_look)
            await asyncio.shield(task)

    async def _read(self, feed: str) -> None:
        missed = self._missed[feed] = []
        try:
            average = await self._context.read(
                average_until, self._context.store, feed, self._context.live.now_us() + 1
            )
            for point in missed:
                average.add(point)
            self._averages[feed] = average
        finally:
            del self._missed[feed], self._opening[feed]

    def _take(self, points: Sequence[Point], lost: bool) -> None:
        for point in points:
            if (average := self._averages.get(point.feed)) is not None:
                average.add(point)
            elif (missed := self._missed.get(point.feed)) is not None:
                missed.append(point)

    def quote(self, price_id: str, update: Update) -> Quote | Absent:
        """A feed as it stood when the update was taken."""
        if update.price is not None:
            average = self._averages.get(update.feed) or Average()
            return quote_now(price_id, update.price, average, simulated=self.simulated)
        refusal = update.refusal
        reason = "none" if refusal is None else refusal.hub_reason or refusal.reason.value
        return Absent(price_id, update.feed, reason)

    def now(self, found: dict[str, str]) -> tuple[list[Quote], list[Absent]]:
        """These feeds (feed to id) as they stand now."""
        told = [self.quote(price_id, self._context.live.update(feed)) for feed, price_id in found.items()]
        return [one for one in told if isinstance(one, Quote)], [one for one in told if isinstance(one, Absent)]

    async def after(self, found: dict[str, str], publish_time_s: int) -> tuple[list[Quote], list[Absent]]:
        """The first price of each feed (feed to id) that was published at or after this time.

        Absent are those of which that can't be said: none is there yet, or what was decided then is not all on record.
        """
        return await self._context.read(
            _after, self._context.store, found, publish_time_s * SECOND_US, simulated=self.simulated
        )


def _look(task: asyncio.Task[None]) -> None:
    """Whoever asked may have gone; then nobody else looks at why it failed."""
    if not task.cancelled():
        task.exception()


def _after(
    store: Reads, found: dict[str, str], publish_us: int, *, simulated: bool
) -> tuple[list[Quote], list[Absent]]:
    quotes: list[Quote] = []
    absent: list[Absent] = []
    for feed, price_id in found.items():
        point = _first_after(store, feed, publish_us)
        if point is None:
            absent.append(Absent(price_id, feed, "not_on_record"))
            continue
        average = average_until(store, feed, point.decided_us + 1)
        minute_us = point.decided_us - point.decided_us % MINUTE_US
        minutes = store.bars(feed, Resolution.M1, minute_us, minute_us + 1)
        quotes.append(quote_then(price_id, point, minutes[0] if minutes else None, average, simulated=simulated))
    return quotes, absent


def _first_after(store: Reads, feed: str, publish_us: int) -> Point | None:
    """The first decision whose price was published at or after an instant; None where that is not certain."""
    if not 0 <= publish_us < 2**62:
        return None
    point = store.point_at(feed, publish_time_us=publish_us)
    if point is None or point.mantissa is None:
        return None
    if store.point_at(feed, decided_us=publish_us) is None:
        return None  # the record begins later
    return None if store.gaps(publish_us, point.decided_us) else point
