"""Live bars by websocket: ``/v1/bars``. A snapshot of history, then every final bar once, and the open one as it grows.

The seam: a subscription first collects what becomes final, then the history is read, which holds everything that was
final until then, and what was collected meanwhile follows, but for what the history had. So nothing is lost or
repeated, however long the reading takes. Open bars are read when they are sent: a slow client costs no queue of them.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence

import msgspec
from aiohttp import WSMsgType, web

from oracle_hub.charts import bars_messages as wire
from oracle_hub.charts.answers import ChartsCode, Refused, encode
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.bars_http import asked_resolution, bar_entry
from oracle_hub.charts.context import Context
from oracle_hub.charts.resolutions import RESOLUTIONS, Resolution
from oracle_hub.charts.sockets import frame_guard, others_turn
from oracle_hub.stream.messages import RequestId, request_id

log = logging.getLogger(__name__)

DEFAULT_COUNT = 300
MAX_MESSAGE_BYTES = 65_536
MAX_SUBSCRIPTIONS = 32
MAX_PENDING_BARS = 100_000
"""Final bars that may wait for one client; beyond it, it is closed, and comes back by ``from_us``."""
TOO_SLOW, SHUTDOWN = 4001, 4000
LAST_US = 2**62
CORRECTIONS_INTERVAL_S = 2.0
"""How often it is looked whether another process has changed bars of the past."""


class _Following:
    """One feed of one subscription."""

    __slots__ = ("feed", "final", "first_us", "last_final_us", "last_open", "n_final", "ready", "revisions")

    def __init__(self, feed: str) -> None:
        self.feed = feed
        self.final: deque[Bar] = deque()
        """Became final and is not sent yet."""
        self.last_final_us = -1
        """Start of the last final bar that the client has."""
        self.last_open: Bar | None = None
        self.ready = False
        """The snapshot was sent."""
        self.first_us = LAST_US
        """From here on the client has every final bar."""
        self.n_final = 0
        """How many these are."""
        self.revisions = 0
        """All of their revisions added up."""

    def told(self, bars: Sequence[Bar]) -> None:
        """The client has these final bars, beside those that it had."""
        self.n_final += len(bars)
        self.revisions += sum(bar.revision for bar in bars)

    def corrected(self, bars: Sequence[Bar], before: tuple[int, int]) -> Sequence[Bar]:
        """What has to be told of the final bars of a stretch as the store has them now.

        ``before``: how many the client had in it, and their revisions added up.
        """
        now = len(bars), sum(bar.revision for bar in bars)
        self.n_final += now[0] - before[0]
        self.revisions += now[1] - before[1]
        if now == before:
            return ()
        return bars if now[0] != before[0] else [bar for bar in bars if bar.revision]


class _Subscription:
    """One resolution of some feeds, for one client."""

    def __init__(self, number: int, resolution: Resolution, feeds: Sequence[str]) -> None:
        self.number = number
        self.resolution = resolution
        self.feeds = {feed: _Following(feed) for feed in feeds}


class _Client:
    """One connection."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.subscriptions: dict[int, _Subscription] = {}
        self.numbered = 0
        self.pending = 0
        self.news = asyncio.Event()
        self.overrun = False
        self.fault: int | None = None
        """The close code for what is wrong with its frames."""
        self.corrections: deque[wire.Revisions] = deque()

    def found(self, fault: int) -> None:
        """Its frames broke the rules: nothing more of it is read."""
        self.fault = fault
        self.news.set()

    @property
    def over(self) -> tuple[int, bytes] | None:
        """How it is to be told that it is to leave; None while it may stay."""
        if self.fault is not None:
            return self.fault, b""
        return (TOO_SLOW, b"too_slow") if self.overrun else None

    def correct(self, revisions: wire.Revisions) -> None:
        """Have this sent."""
        self.corrections.append(revisions)
        if self.pending + sum(len(one.bars) for one in self.corrections) > MAX_PENDING_BARS:
            self.overrun = True
        self.news.set()

    async def send(self, message: wire.ServerMessage) -> None:
        """Write, and wait until the client has taken most of what was written."""
        await self.ws.send_str(encode(message).decode())

    def collect(self, bar: Bar) -> None:
        """A bar became final."""
        for subscription in self.subscriptions.values():
            if subscription.resolution is bar.resolution and bar.feed in subscription.feeds:
                if self.pending >= MAX_PENDING_BARS:
                    self.overrun = True
                    return
                subscription.feeds[bar.feed].final.append(bar)
                self.pending += 1
                self.news.set()


class BarsSocket:
    """The door."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clients: dict[_Client, None] = {}
        self._correcting: asyncio.Task[None] | None = None
        context.recorder.tap(self._collect)
        context.on_stop(self._stop)

    def _collect(self, bars: Sequence[Bar]) -> None:
        for client in self._clients:
            if client.subscriptions:
                for bar in bars:
                    client.collect(bar)

    def _stop(self) -> None:
        if self._correcting is not None:
            self._correcting.cancel()
        for client in self._clients:
            client.news.set()

    # Connections.

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/bars``."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            message = "this is a websocket; history is at /v1/bars/{feed}"
            raise Refused(426, ChartsCode.UPGRADE_REQUIRED, message)
        with self._context.listener(request):
            ws = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=20.0, timeout=0.5)
            guard = frame_guard(request, self._context.make_guard, MAX_MESSAGE_BYTES)
            await ws.prepare(request)
            client = _Client(ws)
            if guard is not None:
                guard.watch(client.found)
            self._clients[client] = None
            self._look_for_corrections()
            writing = asyncio.create_task(self._write(client), name="bars of a client")
            try:
                await client.send(self._hello())
                async for frame in ws:
                    await others_turn()
                    if frame.type is WSMsgType.TEXT:
                        await self._take(client, frame.data)
                    else:
                        await client.send(_error(None, ChartsCode.BAD_REQUEST, "text messages only"))
            except ConnectionError:
                pass  # the client left under our hands
            finally:
                self._clients.pop(client, None)
                writing.cancel()
                await asyncio.wait([writing])
                if not writing.cancelled() and writing.exception() is not None:
                    self._context.failures += 1
                    log.error("sending bars failed", exc_info=writing.exception())
        return ws

    def _hello(self) -> wire.Hello:
        context = self._context
        return wire.Hello(
            server_time_us=context.live.now_us(),
            heartbeat_ms=context.settings.heartbeat_ms,
            feeds=list(context.live.feeds),
            resolutions=[resolution.value for resolution in RESOLUTIONS],
            simulated=context.live.simulated,
            limits={
                "max_rows": context.settings.max_rows,
                "max_subscriptions": MAX_SUBSCRIPTIONS,
                "max_message_bytes": MAX_MESSAGE_BYTES,
            },
        )

    # Requests.

    async def _take(self, client: _Client, text: str) -> None:
        try:
            message = wire.client_message_decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            await client.send(_error(request_id(text), ChartsCode.BAD_REQUEST, str(error)[:200]))
            return
        try:
            match message:
                case wire.Subscribe():
                    await self._subscribe(client, message)
                case wire.Unsubscribe():
                    if client.subscriptions.pop(message.sub, None) is None:
                        raise Refused(400, ChartsCode.BAD_REQUEST, f"no subscription {message.sub}")
                    await client.send(wire.Unsubscribed(id=message.id, sub=message.sub))
                case wire.Ping():
                    await client.send(wire.Pong(id=message.id, server_time_us=self._context.live.now_us()))
        except Refused as refused:
            await client.send(_error(message.id, refused.code, str(refused)))

    async def _subscribe(self, client: _Client, asked: wire.Subscribe) -> None:
        context = self._context
        if asked.channel != "bars":
            raise Refused(400, ChartsCode.BAD_REQUEST, f"no channel {asked.channel[:32]!r} here; the only one is bars")
        if len(client.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Refused(429, ChartsCode.TOO_MANY_LISTENERS, f"more than {MAX_SUBSCRIPTIONS} subscriptions")
        resolution = asked_resolution(asked.resolution)
        known = context.live.feeds
        names = list(known) if asked.feeds == ["*"] else list(dict.fromkeys(asked.feeds))
        accepted = [name for name in names if name in known]
        rejected = [wire.Rejected(name[:64], ChartsCode.UNKNOWN_FEED.value) for name in names if name not in known]
        number: int | None = None
        if accepted:
            client.numbered += 1
            number = client.numbered
        answer = wire.Subscribed(
            id=asked.id,
            sub=number,
            channel="bars",
            resolution=resolution.value,
            accepted=accepted,
            rejected=rejected,
        )
        if number is None:
            await client.send(answer)
            return
        subscription = client.subscriptions[number] = _Subscription(number, resolution, accepted)  # collects from now
        try:
            await client.send(answer)
            left = context.settings.max_rows
            for following in subscription.feeds.values():
                left -= await self._snapshot(client, subscription, following, asked, left)
        except Refused:
            client.subscriptions.pop(number, None)
            raise
        client.news.set()

    async def _snapshot(
        self, client: _Client, sub: _Subscription, following: _Following, asked: wire.Subscribe, left: int
    ) -> int:
        """Send the history of one feed; returns its rows."""
        context, store, feed = self._context, self._context.store, following.feed
        if asked.from_us is None:
            count = DEFAULT_COUNT if asked.count is None else asked.count
            bars = await context.read(store.last_bars, feed, sub.resolution, LAST_US, min(count, left + 1))
        else:
            bars = await context.read(store.bars, feed, sub.resolution, asked.from_us, LAST_US, left + 1)
        if len(bars) > left:
            limit = context.settings.max_rows
            raise Refused(400, ChartsCode.TOO_MANY_ROWS, f"more than {limit} bars; ask for fewer, or page by HTTP")
        final = [bar for bar in bars if bar.closed]
        following.last_final_us = final[-1].start_us if final else -1
        following.first_us = asked.from_us if asked.from_us is not None else final[0].start_us if final else LAST_US
        following.told(final)
        following.last_open = bars[-1] if bars and not bars[-1].closed else None
        info = context.live.feeds.get(feed)
        message = wire.Snapshot(
            sub=sub.number,
            feed=feed,
            resolution=sub.resolution.value,
            expo=info.expo if info is not None else bars[-1].expo if bars else None,
            server_time_us=context.live.now_us(),
            bars=[bar_entry(bar) for bar in bars],
        )
        await client.send(message)
        following.ready = True
        return len(bars)

    # Corrections.

    def _look_for_corrections(self) -> None:
        if self._correcting is None or self._correcting.done():
            self._correcting = asyncio.create_task(self._correct(), name="corrected bars")

    async def _correct(self) -> None:
        """Look now and then whether another process has changed the past. Ends when nobody listens any more."""
        while self._clients:
            await asyncio.sleep(CORRECTIONS_INTERVAL_S)
            with contextlib.suppress(Refused):  # the store can't be read now: what it has is told later
                await self.correct()

    async def correct(self) -> None:
        """Have every client told which of its final bars are others now, if another process has written since the last
        call.

        Raises:
            Refused: the store can't be read now.
        """
        context = self._context
        if not await context.read(context.store.changed_by_others):
            return
        for client in tuple(self._clients):
            for sub in tuple(client.subscriptions.values()):
                for following in sub.feeds.values():
                    if following.ready and following.first_us <= following.last_final_us:
                        await self._correct_one(client, sub, following)

    async def _correct_one(self, client: _Client, sub: _Subscription, following: _Following) -> None:
        context, before = self._context, (following.n_final, following.revisions)
        first_us, end_us = following.first_us, following.last_final_us + 1
        found = await context.read(context.store.bars, following.feed, sub.resolution, first_us, end_us)
        bars = following.corrected([bar for bar in found if bar.closed], before)
        if bars:
            client.correct(
                wire.Revisions(
                    sub=sub.number,
                    server_time_us=context.live.now_us(),
                    feed=following.feed,
                    expo=bars[-1].expo,
                    bars=[bar_entry(bar) for bar in bars],
                )
            )

    # News.

    async def _write(self, client: _Client) -> None:
        """Tell one client what is new, at most ``open_bar_hz`` times a second."""
        settings = self._context.settings
        loop = asyncio.get_running_loop()
        beat_s = settings.heartbeat_ms / 1000
        next_beat_s = loop.time() + beat_s
        with contextlib.suppress(ConnectionError):
            while not self._context.stopping and client.over is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1 / settings.open_bar_hz):
                        await client.news.wait()
                client.news.clear()
                for subscription in tuple(client.subscriptions.values()):
                    changed = self._changed(client, subscription)
                    if changed:
                        now_us = self._context.live.now_us()
                        await client.send(wire.Bars(sub=subscription.number, server_time_us=now_us, feeds=changed))
                while client.corrections:
                    revisions = client.corrections.popleft()
                    if revisions.sub in client.subscriptions:
                        await client.send(revisions)
                if loop.time() >= next_beat_s:
                    next_beat_s = loop.time() + beat_s
                    await client.send(self._beat())
            code, reason = client.over or (SHUTDOWN, b"shutdown")
            await client.ws.close(code=code, message=reason)

    def _beat(self) -> wire.Heartbeat:
        live = self._context.live
        return wire.Heartbeat(server_time_us=live.now_us(), connected=live.status.connected, heard_us=live.heard_us)

    def _changed(self, client: _Client, subscription: _Subscription) -> list[wire.FeedBars]:
        """Final bars that wait, and open ones that differ from what was sent. Marks them as sent."""
        recorder = self._context.recorder
        recorder.harvest()  # an open bar must not be told before the final ones that it follows
        builder = recorder.builder
        found: list[wire.FeedBars] = []
        for following in subscription.feeds.values():
            if not following.ready:
                continue
            bars: list[Bar] = []
            while following.final:
                bar = following.final.popleft()
                client.pending -= 1
                if bar.start_us > following.last_final_us:
                    following.last_final_us = bar.start_us
                    following.first_us = min(following.first_us, bar.start_us)
                    following.told([bar])
                    bars.append(bar)
            opened = None if builder is None else builder.live(following.feed, subscription.resolution)
            if opened is not None and opened != following.last_open and opened.start_us > following.last_final_us:
                following.last_open = opened
                bars.append(opened)
            if bars:
                found.append(
                    wire.FeedBars(feed=following.feed, expo=bars[-1].expo, bars=[bar_entry(bar) for bar in bars])
                )
        return found


def _error(request: RequestId, code: ChartsCode, message: str) -> wire.Error:
    return wire.Error(id=request, code=code.value, message=message)


def routes(context: Context) -> list[web.RouteDef]:
    """The websocket ``/v1/bars``."""
    return [web.get("/v1/bars", BarsSocket(context).handle, allow_head=False)]
