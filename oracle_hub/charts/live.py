"""The newest state of every feed, and those who wait for it: what all doors share.

Prices come from the client library, which judges leases by the hub's clock at the moment of asking; nothing here ever
keeps a price. A listener owns one slot per feed, so a slow one gets the newest and costs no more than that.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeAlias

import msgspec

from oracle_hub.charts.answers import ChartsCode, Refused
from oracle_hub.charts.points import Point
from oracle_hub.charts.store_reads import Position
from oracle_hub.client import NoPrice, Price, Prices, Refusal
from oracle_hub.client import Update as ClientUpdate
from oracle_hub.stream.messages import InputEntry

REMOVED = "removed"


class FeedInfo(msgspec.Struct, frozen=True, gc=False):
    """A feed of the hub. Its prices are ``mantissa * 10**expo``."""

    name: str
    expo: int


class HubStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the hub."""

    connected: bool
    """Connected and caught up."""
    url: str | None
    instance: str | None
    epoch: int | None
    seq: int | None
    """Last batch that was taken in."""
    simulated: Mapping[str, Any] | None
    heard_us: int | None
    """Hub's clock: until when everything it decided was taken in."""
    hub_time_us: int | None
    """The latest that the hub's clock can show now; None before any hub was heard."""
    last_error: str | None


class Update(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One feed as it stood when the listener took it: ``price`` with its lease, or None and ``refusal``."""

    feed: str
    price: Price | None
    refusal: NoPrice | None
    point: Point | None
    """The last decision that was heard. A record: act on, and show, ``price`` only."""


PointsTap: TypeAlias = Callable[[Sequence[Point], bool], None]
"""Called with points, and whether decisions before them were missed for good."""


class Live:
    """The newest of each feed. Everything is called on the event loop."""

    def __init__(self, *, max_listeners: int = 1_000) -> None:
        self._prices: Prices | None = None
        self._points: dict[str, Point] = {}
        self._feeds: dict[str, FeedInfo] = {}
        self._inputs: dict[str, Mapping[str, InputEntry]] = {}
        self._listeners: dict[Listener, None] = {}
        self._taps: list[PointsTap] = []
        self._max_listeners = max_listeners
        self._anchor: tuple[int, int] | None = None  # hub's clock, our monotonic clock
        self.position: Position | None = None
        """Last batch that was taken in, of this life or the one before."""
        self.heard_us: int | None = None

    def attach(self, prices: Prices) -> None:
        """From now on ask this client for prices."""
        self._prices = prices

    # What doors ask.

    @property
    def feeds(self) -> Mapping[str, FeedInfo]:
        """The feeds of the hub by name; before it was reached, those that it had last."""
        return MappingProxyType(self._feeds)

    def price(self, feed: str) -> Price:
        """The price that holds now, its lease judged by the hub's clock. Never waits.

        Raises:
            NoPrice: there is none that may be shown; its ``reason`` says why.
        """
        if self._prices is None:
            raise NoPrice(feed, Refusal.DISCONNECTED, "no hub was reached yet")
        return self._prices.get(feed)

    def point(self, feed: str) -> Point | None:
        """The last decision that was heard, which may be over: a record, for state and reason. None: no such feed."""
        return self._points.get(feed)

    def inputs(self, feed: str) -> Mapping[str, InputEntry]:
        """The sources as they stood at the last decision that was heard, by name; empty where nothing was heard yet."""
        return self._inputs.get(feed, {})

    def heard_inputs(self, feed: str, inputs: Mapping[str, InputEntry]) -> None:
        """A decision was made from these."""
        self._inputs[feed] = inputs

    def update(self, feed: str) -> Update:
        """A feed as it stands now."""
        try:
            price, refusal = self.price(feed), None
        except NoPrice as error:
            price, refusal = None, error
        return Update(feed=feed, price=price, refusal=refusal, point=self._points.get(feed))

    def now_us(self) -> int:
        """The hub's clock. While no hub is heard it is carried on; before any was, it is the wall clock."""
        now_us = time.monotonic_ns() // 1000
        hub_us = None if self._prices is None else self._prices.hub_time_us
        if hub_us is not None:
            self._anchor = (hub_us, now_us)
            return hub_us
        if self._anchor is None:
            return time.time_ns() // 1000
        return self._anchor[0] + now_us - self._anchor[1]

    @property
    def connections(self) -> int:
        """How often a hub was reached."""
        return 0 if self._prices is None else self._prices.stats.connections

    @property
    def simulated(self) -> Mapping[str, Any] | None:
        """What is simulated, or None where prices are real, or no hub was reached yet."""
        hub = None if self._prices is None else self._prices.hub
        return None if hub is None else hub.simulated

    @property
    def status(self) -> HubStatus:
        """What is known of the hub."""
        prices = self._prices
        stats = None if prices is None else prices.stats
        hub = None if prices is None else prices.hub
        at = self.position
        return HubStatus(
            connected=stats is not None and stats.connected,
            url=None if stats is None else stats.url,
            instance=hub.instance if hub is not None else at.instance if at is not None else None,
            epoch=None if at is None else at.epoch,
            seq=None if at is None else at.seq,
            simulated=None if hub is None else hub.simulated,
            heard_us=self.heard_us,
            hub_time_us=None if prices is None else prices.hub_time_us,
            last_error=None if stats is None else stats.last_error,
        )

    def listen(self, feeds: Iterable[str] | None = None) -> "Listener":
        """Wait for news of these feeds (None: all). To be used with ``async with``, or closed.

        >>> async with live.listen(["SOL/USD"]) as listener:
        ...     async for update in listener: ...

        Raises:
            Refused: there are too many listeners already.
        """
        if len(self._listeners) >= self._max_listeners:
            raise Refused(503, ChartsCode.TOO_MANY_LISTENERS, "too many listeners; come back later", retry_after_s=5)
        listener = Listener(self, None if feeds is None else frozenset(feeds))
        self._listeners[listener] = None
        return listener

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    # What the recorder tells.

    def tap(self, take: PointsTap) -> None:
        """Have every run of points told to ``take``, in order, none left out, before listeners are woken."""
        self._taps.append(take)

    def restore(self, points: Iterable[Point], position: Position | None) -> None:
        """What an earlier life wrote down: names and last decisions, never prices."""
        for point in points:
            self._hold(point)
        self.position = position

    def remember(self, info: FeedInfo) -> None:
        """A feed of which there is history; a hub that has it not makes it forgotten."""
        self._feeds.setdefault(info.name, info)

    def take(self, points: Sequence[Point], heard_us: int | None, *, lost: bool = False) -> None:
        """New points in their order, until when they are complete, and whether something before them was missed."""
        if heard_us is not None:
            self.heard_us = heard_us
        if not points:
            return
        for point in points:
            self._hold(point)
        last = points[-1]
        self.position = Position(last.instance, last.epoch, last.seq)
        for take in self._taps:
            take(points, lost)
        self._wake(dict.fromkeys(point.feed for point in points))

    def known(self, feeds: Collection[str]) -> None:
        """A hub has said which feeds it has: forget the others."""
        for gone in self._feeds.keys() - set(feeds):
            del self._feeds[gone]
            self._wake((gone,))

    def turned(self, update: ClientUpdate) -> None:
        """A feed has got or lost its price, for whatever reason: the client's callback."""
        self._wake((update.feed,))

    def close(self) -> None:
        """End all listening."""
        for listener in tuple(self._listeners):
            listener.close()

    def _hold(self, point: Point) -> None:
        if point.reason == REMOVED:
            self._feeds.pop(point.feed, None)
            self._inputs.pop(point.feed, None)
        elif point.feed not in self._feeds or self._feeds[point.feed].expo != point.expo:
            self._feeds[point.feed] = FeedInfo(point.feed, point.expo)
        self._points[point.feed] = point

    def _wake(self, feeds: Collection[str]) -> None:
        for listener in self._listeners:
            listener.mark(feeds)

    def _forget(self, listener: "Listener") -> None:
        self._listeners.pop(listener, None)


class Listener:
    """One who waits for news. Made by :meth:`Live.listen`. Only one task may wait."""

    def __init__(self, live: Live, feeds: frozenset[str] | None) -> None:
        self._live = live
        self._feeds = feeds
        self._marked: dict[str, None] = {}
        self._news = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """There will be no more news."""
        return self._closed

    def close(self) -> None:
        """Be told nothing more. Whoever waits is woken."""
        self._closed = True
        self._live._forget(self)
        self._news.set()

    @property
    def marked(self) -> tuple[str, ...]:
        """The feeds that :meth:`take` would give."""
        return tuple(self._marked)

    def mark(self, feeds: Collection[str]) -> None:
        """There is news of these feeds."""
        wanted = self._feeds
        for feed in feeds:
            if wanted is None or feed in wanted:
                self._marked[feed] = None
        if self._marked:
            self._news.set()

    def follow(self, feeds: Iterable[str]) -> None:
        """From now on be told of these feeds instead. Of a new one nothing is told before it has news."""
        self._feeds = frozenset(feeds)
        self._marked = {feed: None for feed in self._marked if feed in self._feeds}

    def take(self) -> list[Update]:
        """All feeds with news, each as it stands now. Never waits."""
        marked, self._marked = self._marked, {}
        self._news.clear()
        return [self._live.update(feed) for feed in marked]

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there is news. False: the time is over, or the listener was closed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return not self._closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """The next feed with news, as it stands now."""
        while not self._marked:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self._closed:
            raise StopAsyncIteration
        feed = next(iter(self._marked))
        del self._marked[feed]
        return self._live.update(feed)
