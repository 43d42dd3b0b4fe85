"""Chainlink Data Streams: the websocket and the REST API, with reports signed by a DON of test keys.

Source: Chainlink's Data Streams reference. Every request must be signed (HMAC, within 5 s of the server's clock).
Prices are those of Chainlink's Doves leg. Reports come as JSON in binary frames.
"""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from typing import ClassVar

import orjson
from aiohttp import WSMsgType, web

from feeds.chainlink.data_streams import STREAM_ID, signed_headers
from feeds.emulator.accounts import Held
from feeds.emulator.oracles import CHAINLINK_LEG
from feeds.emulator.report_signing import DonSigner
from feeds.emulator.server import Server
from feeds.emulator.world import Change, World

ORIGINS = ("001", "002")
TOLERANCE_MS = 5_000
_TO_18_DECIMALS = 10**10
_SPREAD_PPM = 20
_QUEUE_REPORTS = 1_000


class _Socket:
    """One open socket: its feeds, and a bounded queue of frames (None ends it)."""

    def __init__(self, feeds: frozenset[str]) -> None:
        self.feeds = feeds
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_REPORTS)

    def put(self, frame: bytes | None) -> None:
        if self.frames.full():
            self.frames.get_nowait()
        self.frames.put_nowait(frame)


class StreamsServer(Server):
    """A host under a name, over a world that others share; ``key`` and ``secret`` are what clients sign with."""

    ORACLE: ClassVar[str | None] = CHAINLINK_LEG

    def __init__(self, name: str, world: World, now_us: Callable[[], int], *, key: str, secret: str) -> None:
        super().__init__(name, world, now_us)
        self._key = key
        self._secret = secret
        self._signer = DonSigner()
        self._sockets: set[_Socket] = set()
        self._opened = asyncio.Event()

    def routes(self, app: web.Application) -> None:
        """Add the routes of both APIs; ``HEAD /`` names the origins."""
        app.router.add_route("HEAD", "/", self._discover)
        app.router.add_get("/api/v1/feeds", self._feeds)
        app.router.add_get("/api/v1/reports/latest", self._latest)
        app.router.add_get("/api/v1/ws", self._stream)

    async def _admit(self, request: web.Request) -> None:
        """Slow down, refuse, and check the signature."""
        await self._hold_up('{"error": "rate limit exceeded"}')
        told = request.headers.get("X-Authorization-Timestamp", "")
        at_ms = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0
        url = f"http://host{request.raw_path}"
        wanted = signed_headers(request.method, url, await request.read(), self._key, self._secret, at_ms)
        signed = all(hmac.compare_digest(request.headers.get(name, ""), value) for name, value in wanted.items())
        late = abs(at_ms - self._now_us() // 1_000) > TOLERANCE_MS
        if late or not signed or self._faults("unauthorized"):
            raise web.HTTPUnauthorized(text='{"error": "unauthorized"}')
        if request.headers.get("X-Cll-Origin", ORIGINS[0]) not in ORIGINS:
            raise web.HTTPBadRequest(text='{"error": "unknown origin"}')

    # Answers.

    async def _discover(self, request: web.Request) -> web.Response:
        await self._admit(request)
        return web.Response(headers={"X-Cll-Available-Origins": "{" + ",".join(ORIGINS) + "}"})

    async def _feeds(self, request: web.Request) -> web.Response:
        await self._admit(request)
        played = {feed for feed, oracle in self._world.keys if oracle == CHAINLINK_LEG}
        ids = [one for one, feed in self._world.catalogue.of_streams_id.items() if feed in played]
        body = {"feeds": [{"feedID": "0x" + one} for one in ids]}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _latest(self, request: web.Request) -> web.Response:
        await self._admit(request)
        for feed in self._asked(request.query.get("feedID", "")):
            held = self._world.held(feed, CHAINLINK_LEG)
            if held is not None:
                return web.Response(body=self._broken(self.report(feed, held)), content_type="application/json")
        raise web.HTTPNotFound(text='{"error": "report not found"}')

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request)
        feeds = self._asked(request.query.get("feedIDs", ""))
        if not feeds:
            raise web.HTTPBadRequest(text='{"error": "feedIDs is required"}')
        response = web.WebSocketResponse()
        await response.prepare(request)
        socket = _Socket(feeds)
        self._sockets.add(socket)
        self._opened.set()
        sender = asyncio.create_task(self._send(response, socket))
        try:
            async for message in response:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._sockets.discard(socket)
            sender.cancel()
        return response

    async def _send(self, response: web.WebSocketResponse, socket: _Socket) -> None:
        while (frame := await socket.frames.get()) is not None:
            await response.send_bytes(frame)
        await response.close()

    def _asked(self, ids: str) -> frozenset[str]:
        matches = (STREAM_ID.fullmatch(one) for one in ids.split(","))
        found = (self._world.catalogue.of_streams_id.get(match[1].lower()) for match in matches if match is not None)
        return frozenset(feed for feed in found if feed is not None)

    def report(self, feed: str, held: Held) -> bytes:
        """What REST and websocket say of a state, signed."""
        stream_id = self._world.catalogue.assets[feed].data_streams_id
        price = held.mantissa * _TO_18_DECIMALS
        half = max(1, price * _SPREAD_PPM // 2_000_000)
        quotes = {"price": price, "bid": price - half, "ask": price + half}
        raw = self._signer.report(bytes.fromhex(stream_id), held.publish_s, quotes, held.round_id)
        inner = {"feedID": "0x" + stream_id, "fullReport": "0x" + raw.hex()}
        times = dict.fromkeys(("validFromTimestamp", "observationsTimestamp"), held.publish_s)
        return orjson.dumps({"report": inner | times})

    # The stream.

    def tell(self, changes: Sequence[Change]) -> None:
        """Send a report for each change to the sockets that asked for its feed."""
        if not self._sockets or self._faults("half_open"):
            return
        for feed, held in self._told(changes):
            frame = self._broken(self.report(feed, held))
            for socket in self._sockets:
                if feed in socket.feeds:
                    socket.put(frame)

    @property
    def sockets(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    async def wait_for_sockets(self, count: int) -> None:
        """Return as soon as so many sockets are open."""
        while self.sockets < count:
            self._opened.clear()
            await self._opened.wait()

    async def close(self) -> None:
        """End every socket in good order."""
        for socket in tuple(self._sockets):
            socket.put(None)
