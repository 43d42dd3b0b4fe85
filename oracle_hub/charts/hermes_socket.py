"""Hermes' websocket, ``/ws``: one message per price, subscribed by id.

>>> {"type": "subscribe", "ids": ["ef0d…"], "verbose": true, "binary": false}
{"type": "response", "status": "success"}
{"type": "price_update", "price_feed": {…}}

A price that is over has no shape of Hermes'. Who subscribes with ``"oracle_hub": true``, which is ours, is told it in a
message of its own, ``price_absent``; everybody has ``oracle_hub.valid_until_us`` in what was told before.
"""

import asyncio
import logging
from collections.abc import Awaitable

import msgspec
from aiohttp import WSMsgType, web

from oracle_hub.charts.answers import ChartsCode, Refused, encode
from oracle_hub.charts.context import Context
from oracle_hub.charts.hermes_ids import BadId, parse_id
from oracle_hub.charts.hermes_quotes import Absent, Quotes
from oracle_hub.charts.hermes_shapes import Quote, price_feed
from oracle_hub.charts.hermes_stream import TIMEOUT_TEXT, News, StreamLimits, learn_marked
from oracle_hub.charts.live import Listener
from oracle_hub.charts.signed import Signed
from oracle_hub.charts.sockets import frame_guard, hide_little, others_turn, taken

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1025 * 1024
CLOSE_S = 0.5
GOING_AWAY = 1001


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe"):
    """Options hold for the ids of this message. An id that is subscribed already gets these instead of its old ones."""

    ids: list[str]
    verbose: bool = False
    binary: bool = False
    allow_out_of_order: bool = False
    """Accepted. Nothing ever comes out of order: what is told is always the newest decision."""
    ignore_invalid_price_ids: bool = False
    oracle_hub: bool = False
    """Not Hermes': be told when a price is over."""


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribe"):
    """Be told of these ids no more."""

    ids: list[str]


_decode = msgspec.json.Decoder(Subscribe | Unsubscribe).decode
SUCCESS = {"type": "response", "status": "success"}


def failure(text: str) -> dict[str, str]:
    """What is answered to a message that is not carried out. The connection goes on."""
    return {"type": "response", "status": "error", "error": text}


class _Client:
    """One connection: what it subscribed to, by feed."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse, listener: Listener, quotes: Quotes) -> None:
        self.request = request
        self.ws = ws
        self.listener = listener
        self.news = News(quotes)
        self.wanted: dict[str, tuple[str, Subscribe]] = {}
        """Feed to its id and the options."""
        self.fault: int | None = None
        """The close code for what is wrong with its frames."""

    def found(self, fault: int) -> None:
        """Its frames broke the rules: nothing more of it is read, and nothing more is told."""
        self.fault = fault
        self.listener.close()

    def ended(self, task: asyncio.Task[None]) -> None:
        """A part of the connection is over. Where it failed, so is the rest: silence would look like no news."""
        if not task.cancelled() and task.exception() is not None:
            self.cut()

    def cut(self) -> None:
        """End it at once. Nothing of what waits for this client is worth being read."""
        if self.request.transport is not None:
            self.request.transport.abort()


class HermesSocket:
    """The door."""

    def __init__(self, context: Context, quotes: Quotes, signed: Signed, limits: StreamLimits) -> None:
        self._context = context
        self._quotes = quotes
        self._signed = signed
        self._limits = limits

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /ws``. Beyond the limits it is refused at the handshake, which makes clients back off."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Refused(
                426, ChartsCode.UPGRADE_REQUIRED, "this is a websocket; see /v2/updates/price/stream for events"
            )
        with self._context.listener(request):
            # Not compressed: that takes longer than writing so short a message.
            ws = web.WebSocketResponse(
                max_msg_size=MAX_MESSAGE_BYTES, heartbeat=2 * self._limits.ping_s, timeout=CLOSE_S, compress=False
            )
            guard = frame_guard(request, self._context.make_guard, MAX_MESSAGE_BYTES)
            await ws.prepare(request)
            hide_little(request.transport)
            async with self._context.live.listen(()) as listener:
                client = _Client(request, ws, listener, self._quotes)
                if guard is not None:
                    guard.watch(client.found)
                tasks = [
                    asyncio.create_task(part(client), name="hermes websocket") for part in (self._tell, self._ping)
                ]
                for task in tasks:
                    task.add_done_callback(client.ended)
                try:
                    await self._hear(client)
                except ConnectionError:
                    pass  # the client left under our hands, or was cut off
                finally:
                    if client.fault is not None:  # whose close must be read before what it still sends meets nobody
                        await asyncio.wait(tasks[:1], timeout=2 * CLOSE_S)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    self._look(tasks)
        return ws

    def _look(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ConnectionError):
                self._context.failures += 1
                log.error("a websocket failed", exc_info=error)

    async def _hear(self, client: _Client) -> None:
        """Carry out what the client asks for, until it leaves."""
        async for frame in client.ws:
            await others_turn()
            if client.fault is not None or frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            try:
                message = _decode(frame.data)
                wake = await self._subscribe(client, message) if isinstance(message, Subscribe) else ()
                if isinstance(message, Unsubscribe):
                    self._unsubscribe(client, message)
                answer = SUCCESS
            except (msgspec.DecodeError, RecursionError, BadId, _NotFound, Refused) as error:
                answer, wake = failure(str(error)), ()
            await self._send(client, answer)
            client.listener.follow(client.wanted)  # so that no price comes before the answer
            client.listener.mark(wake)

    async def _subscribe(self, client: _Client, message: Subscribe) -> tuple[str, ...]:
        """Add the feeds; returns those of which there is something to tell."""
        found, unknown = self._quotes.sort(map(parse_id, message.ids))
        if unknown and not message.ignore_invalid_price_ids:
            raise _NotFound(unknown)
        await self._quotes.open(found)
        for feed, price_id in found.items():
            client.wanted[feed] = (price_id, message)
            client.news.forget(feed)
        return tuple(found)

    def _unsubscribe(self, client: _Client, message: Unsubscribe) -> None:
        found, _ = self._quotes.sort(map(parse_id, message.ids))
        for feed in found:
            client.wanted.pop(feed, None)

    async def _tell(self, client: _Client) -> None:
        """News as it comes. A slow client gets the newest of each feed."""
        clock = asyncio.get_running_loop().time
        end_s = clock() + self._limits.connection_s
        while not client.listener.closed and clock() < end_s:
            if any(wanted.binary for _, wanted in client.wanted.values()):
                await learn_marked(self._signed, self._context, client.listener)
            for update in client.listener.take():
                if update.feed not in client.wanted:
                    continue
                price_id, wanted = client.wanted[update.feed]
                one = client.news.of(price_id, update)
                if isinstance(one, Quote):
                    signed = self._signed.of(one)
                    told = price_feed(one, signed, verbose=wanted.verbose, with_binary=wanted.binary)
                    await self._send(client, {"type": "price_update", "price_feed": told})
                elif isinstance(one, Absent) and wanted.oracle_hub:
                    await self._send(client, {"type": "price_absent", "id": one.price_id, "oracle_hub": one})
            await client.listener.wait(max(0.0, end_s - clock()))
        if not client.listener.closed:
            await self._send(client, failure(TIMEOUT_TEXT))
        await client.ws.close(code=GOING_AWAY if client.fault is None else client.fault)

    async def _ping(self, client: _Client) -> None:
        """At once, and then again and again: clients take a server that does not ping for dead."""
        while True:
            await self._written(client, client.ws.ping())
            await asyncio.sleep(self._limits.ping_s)

    async def _send(self, client: _Client, message: object) -> None:
        await self._written(client, client.ws.send_str(encode(message).decode()))

    async def _written(self, client: _Client, writing: Awaitable[None]) -> None:
        """Wait for it; cut off a client that takes nothing: what waits for it is old."""
        try:
            async with asyncio.timeout(self._limits.write_s):
                await writing
            await taken(client.request.transport, self._limits.write_s)
        except TimeoutError:
            client.cut()
            raise ConnectionResetError("the client takes nothing") from None


class _NotFound(Exception):
    def __init__(self, unknown: list[str]) -> None:
        super().__init__(f"Price feed(s) with id(s) [{', '.join(f'0x{price_id}' for price_id in unknown)}] not found")
