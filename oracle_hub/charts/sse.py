"""The native stream as server-sent events: ``GET /v1/sse?feeds=SOL/USD,BTC/USD``, for those without websockets.

Whenever all that happened has been told, the event has an id, ``instance:epoch:seq``. Who comes back with it as
``Last-Event-ID`` is replayed what was missed, where a bounded ring has all of it, and then told the present state;
otherwise the present state alone, which says so. Slow readers skip what is over: they get each feed's newest.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import ChartsCode, Refused, cors_headers, encode
from oracle_hub.charts.context import Context
from oracle_hub.charts.live import Listener, Live
from oracle_hub.charts.points import Point
from oracle_hub.charts.sockets import hide_little, taken
from oracle_hub.charts.states import FeedState, recorded, state_of, states_now
from oracle_hub.charts.store_reads import Position

RETRY_MS = 1_000
WRITE_TIMEOUT_S = 10.0
"""A reader that takes nothing for so long is cut off."""
MAX_ID_LENGTH = 100


class SseSnapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Event ``snapshot``: every feed of the request as it stands. Replaces whatever the reader held."""

    instance: str | None
    epoch: int | None
    seq: int | None
    server_time_us: int
    simulated: Any
    recovered: bool | None
    """Whether everything since ``Last-Event-ID`` was replayed before this; None where none was sent."""
    connected: bool
    feeds: list[FeedState]


class SseUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Event ``update``: one feed, with its lease. ``replayed``: as it was decided then, not as it stands."""

    server_time_us: int
    replayed: bool
    feed: FeedState


class SseHeartbeat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Event ``heartbeat``, at a fixed cadence: who is not live, and whether the hub is heard."""

    instance: str | None
    epoch: int | None
    seq: int | None
    server_time_us: int
    connected: bool
    not_live: list[str]


class Ring:
    """The latest points, for those who come back. Of one hub in one epoch, with no hole."""

    def __init__(self, max_points: int = 10_000) -> None:
        self._points: deque[Point] = deque()
        self._max_points = max_points
        self._floor: Position | None = None
        """Whoever has everything up to here can be replayed the rest."""

    def take(self, points: Sequence[Point], lost: bool) -> None:
        """Keep a run of points; after a loss, or another hub, start over."""
        for point in points:
            floor = self._floor
            if lost or floor is None or (point.instance, point.epoch) != (floor.instance, floor.epoch):
                self._points.clear()
                self._floor = floor = Position(point.instance, point.epoch, point.seq)
                lost = False
            if point.seq > floor.seq:
                self._points.append(point)
            if len(self._points) > self._max_points:
                dropped = self._points.popleft()
                self._floor = Position(dropped.instance, dropped.epoch, dropped.seq)
                while self._points and self._points[0].seq <= dropped.seq:
                    self._points.popleft()

    def since(self, at: Position) -> list[Point] | None:
        """Everything after a position; None where not all of it is here. Never a part."""
        floor = self._floor
        if floor is None or (at.instance, at.epoch) != (floor.instance, floor.epoch) or at.seq < floor.seq:
            return None
        last = self._points[-1].seq if self._points else floor.seq
        if at.seq > last:
            return None
        return [point for point in self._points if point.seq > at.seq]


def parse_id(text: str | None) -> Position | None:
    """``instance:epoch:seq`` to a position; None for anything else, which cannot be resumed from."""
    if text is None or len(text) > MAX_ID_LENGTH:
        return None
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[1:]):
        return None
    return Position(parts[0], int(parts[1]), int(parts[2]))


def event(kind: str, value: object, at: Position | None = None) -> bytes:
    """One event. With ``at`` it has an id: everything up to there has been told."""
    name = b"" if at is None else f"id: {at.instance}:{at.epoch}:{at.seq}\n".encode()
    return name + b"event: " + kind.encode() + b"\ndata: " + encode(value) + b"\n\n"


def feeds_asked(request: web.Request, live: Live) -> list[str] | None:
    """The feeds of ``?feeds=A,B``, where ``-`` may stand for ``/``; None for all.

    Raises:
        Refused: one of them is unknown, by name.
    """
    text = request.query.get("feeds", "*")
    if text == "*":
        return None
    found: list[str] = []
    for name in text.split(","):
        feed = find_feed(live, name)
        if feed not in found:
            found.append(feed)
    return found


def find_feed(live: Live, name: str) -> str:
    """A feed by its name, where ``-`` may stand for ``/``. Raises Refused for one that the hub does not have."""
    for form in (name, name.replace("-", "/")):
        if form in live.feeds:
            return form
    known = ", ".join(list(live.feeds)[:10]) or "none yet"
    raise Refused(404, ChartsCode.UNKNOWN_FEED, f"no feed {name[:64]!r}; the hub has: {known}")


class Sse:
    """The door."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ring = Ring()
        context.live.tap(self._ring.take)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/sse``."""
        context, live = self._context, self._context.live
        feeds = feeds_asked(request, live)
        with context.listener(request):
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",
                    **cors_headers(request.headers.get("Origin")),
                }
            )
            await response.prepare(request)
            hide_little(request.transport)
            async with live.listen(feeds) as listener:
                try:
                    await _write(request, response, self._begin(feeds, request.headers.get("Last-Event-ID")))
                    await self._follow(request, response, listener, feeds)
                except TimeoutError:
                    if request.transport is not None:
                        request.transport.abort()  # what waits in front of this reader is old by now
        return response

    def _begin(self, feeds: list[str] | None, last_id: str | None) -> bytes:
        live = self._context.live
        at = parse_id(last_id)
        missed = None if at is None else self._ring.since(at)
        now_us = live.now_us()
        parts = [f"retry: {RETRY_MS}\n\n".encode()]
        parts += [
            event("update", SseUpdate(server_time_us=now_us, replayed=True, feed=recorded(point)))
            for point in missed or ()
            if feeds is None or point.feed in feeds
        ]
        status = live.status
        snapshot = SseSnapshot(
            instance=status.instance,
            epoch=status.epoch,
            seq=status.seq,
            server_time_us=now_us,
            simulated=status.simulated,
            recovered=None if last_id is None else missed is not None,
            connected=status.connected,
            feeds=states_now(live, feeds),
        )
        return b"".join([*parts, event("snapshot", snapshot, live.position)])

    async def _follow(
        self, request: web.Request, response: web.StreamResponse, listener: Listener, feeds: list[str] | None
    ) -> None:
        """Until the reader goes away. Writing waits for it, and what comes meanwhile is merged by the listener."""
        context, live = self._context, self._context.live
        interval_s = context.settings.heartbeat_ms / 1000
        clock = asyncio.get_running_loop().time
        beat_at_s = clock()
        while not listener.closed:
            due_s = max(0.0, beat_at_s + interval_s - clock())
            parts: list[bytes] = []
            if await listener.wait(due_s):
                updates = listener.take()
                now_us = live.now_us()
                for index, update in enumerate(updates):
                    told = SseUpdate(server_time_us=now_us, replayed=False, feed=state_of(update))
                    at = live.position if index == len(updates) - 1 else None  # then everything up to it was told
                    parts.append(event("update", told, at))
            if clock() - beat_at_s >= interval_s:
                beat_at_s = clock()
                parts.append(event("heartbeat", self._beat(feeds)))
            if parts:
                await _write(request, response, b"".join(parts))

    def _beat(self, feeds: list[str] | None) -> SseHeartbeat:
        live = self._context.live
        status = live.status
        return SseHeartbeat(
            instance=status.instance,
            epoch=status.epoch,
            seq=status.seq,
            server_time_us=live.now_us(),
            connected=status.connected,
            not_live=[state.feed for state in states_now(live, feeds) if state.state != "live"],
        )


async def _write(request: web.Request, response: web.StreamResponse, text: bytes) -> None:
    """Write, and wait until it is taken: what is told next is what holds then. Raises TimeoutError: it is not taken."""
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write(text)
    await taken(request.transport, WRITE_TIMEOUT_S)


def routes(context: Context) -> list[web.RouteDef]:
    """``GET /v1/sse``."""
    return [web.get("/v1/sse", Sse(context).handle, allow_head=False)]
