"""Pyth Pro (Lazer): the websocket of one host, with payloads signed by test keys (:mod:`feeds.emulator.pro_signing`).

Source: Pyth's reference of the protocol. Prices are those of the Pyth Lazer leg; each payload tells all feeds of its
subscription, and carries a price forward until the leg has a new one. Hosts of one world tell the same bytes at the
same instants. Delivery in binary frames is not played, and neither are funding rates.
"""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
import orjson
from aiohttp import WSMsgType, web

from feeds.emulator.accounts import EXPO, Held
from feeds.emulator.oracles import LAZER
from feeds.emulator.pro_signing import simulated_signer, stranger
from feeds.emulator.server import Server
from feeds.emulator.world import Change, World
from feeds.pyth.lazer import CHANNELS, Format, Lazer, LazerFeed

SUBPROTOCOL = "pyth-lazer-auth"
"""Browsers, which can set no header, send the key as a second subprotocol."""
SLOW_FEEDS = frozenset({"USDC/USD", "USDT/USD"})
"""Not served on ``real_time`` and ``fixed_rate@50ms`` (our choice: which ones really are not is not public)."""
_QUEUE_FRAMES = 1_000
_MAX_FEEDS = 255
_PUBLISHERS = 12
_SPREAD_PPM = 20
_CHANNEL_IDS = {name: number for number, name in CHANNELS.items()}
_PERIODS_US = {"fixed_rate@50ms": 50_000, "fixed_rate@200ms": 200_000, "fixed_rate@1000ms": 1_000_000}
_PROPERTIES = {
    "price": "price",
    "bestBidPrice": "best_bid_price",
    "bestAskPrice": "best_ask_price",
    "publisherCount": "publisher_count",
    "exponent": "exponent",
    "confidence": "confidence",
    "fundingRate": "funding_rate",
    "fundingTimestamp": "funding_timestamp",
    "fundingRateInterval": "funding_rate_interval",
    "marketSession": "market_session",
    "emaPrice": "ema_price",
    "emaConfidence": "ema_confidence",
    "feedUpdateTimestamp": "feed_update_timestamp",
}
_FORMATS: dict[str, Format] = {"solana": "solana", "evm": "evm", "leEcdsa": "leEcdsa", "leUnsigned": "leUnsigned"}


class _Request(msgspec.Struct, rename="camel"):
    type: str
    subscription_id: int
    price_feed_ids: list[int] | None = None
    symbols: list[str] | None = None
    properties: list[str] = []
    formats: list[str] = []
    channel: str = ""
    delivery_format: str = "json"
    json_binary_encoding: str = "base64"
    parsed: bool = True
    ignore_invalid_feeds: bool = False


_request = msgspec.json.Decoder(_Request).decode


class _Subscription:
    """What a client asked for, as far as it is served."""

    def __init__(self, request: _Request, feed_ids: list[int], now_us: int) -> None:
        self.request = request
        self.feed_ids = feed_ids
        self.since_us = now_us
        self.sent_us = 0


class _Socket:
    """One open socket: its subscriptions, and a bounded queue of frames (None ends it)."""

    def __init__(self) -> None:
        self.subscriptions: dict[int, _Subscription] = {}
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_FRAMES + 2)
        self.ended = False

    def put(self, frame: bytes) -> None:
        if self.ended:
            return
        if self.frames.qsize() >= _QUEUE_FRAMES:
            self.frames.put_nowait(orjson.dumps({"type": "error", "error": "client too slow"}))
            self.end()
        else:
            self.frames.put_nowait(frame)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.frames.put_nowait(None)


class ProServer(Server):
    """A host under a name, over a world that others share; ``key`` is the token that it wants."""

    ORACLE: ClassVar[str | None] = LAZER

    def __init__(self, name: str, world: World, now_us: Callable[[], int], *, key: str) -> None:
        super().__init__(name, world, now_us)
        self._key = key
        self._sockets: set[_Socket] = set()
        self._first_told: dict[tuple[object, ...], tuple[int, list[LazerFeed]]] = {}
        self._subscribed = asyncio.Event()

    def routes(self, app: web.Application) -> None:
        """Add the websocket, under both of its paths."""
        app.router.add_get("/v1/stream", self._stream)
        app.router.add_get("/v1/prices/stream", self._stream)

    async def _admit(self, request: web.Request) -> None:
        """Slow down, refuse, and check the token: a header, a second subprotocol or a query."""
        await self._hold_up("too many requests")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if scheme.lower() != "bearer":
            token = offered[1] if offered[:1] == [SUBPROTOCOL] and len(offered) > 1 else ""
        token = token or request.query.get("ACCESS_TOKEN", "")
        if not hmac.compare_digest(token.encode(), self._key.encode()) or self._faults("unauthorized"):
            raise web.HTTPUnauthorized(text="invalid access token")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request)
        response = web.WebSocketResponse(protocols=(SUBPROTOCOL,))
        await response.prepare(request)
        socket = _Socket()
        self._sockets.add(socket)
        sender = asyncio.create_task(self._send(response, socket))
        try:
            async for message in response:
                if message.type is WSMsgType.ERROR:
                    break
                if not self._faults("half_open"):
                    socket.put(orjson.dumps(self._answer(socket, message.data)))
                    self._subscribed.set()
        finally:
            self._sockets.discard(socket)
            sender.cancel()
        return response

    async def _send(self, response: web.WebSocketResponse, socket: _Socket) -> None:
        while (frame := await socket.frames.get()) is not None:
            await response.send_str(frame.decode("utf-8", "replace"))
        await response.close()

    # Requests.

    def _answer(self, socket: _Socket, data: str | bytes) -> dict[str, object]:
        try:
            request = _request(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return {"type": "error", "error": f"invalid request: {error}"}
        number = request.subscription_id
        if request.type == "unsubscribe":
            if socket.subscriptions.pop(number, None) is None:
                return _refused(number, "no such subscription")
            return {"type": "unsubscribed", "subscriptionId": number}
        if request.type != "subscribe":
            return {"type": "error", "error": f"unknown type of request: {request.type}"}
        reason = _senseless(request)
        if reason is not None or number in socket.subscriptions:
            return _refused(number, reason or "duplicate subscription id")
        feed_ids, invalid = self._sorted_out(request)
        ignored = any(invalid.values())
        if not feed_ids or (ignored and not request.ignore_invalid_feeds):
            if not feed_ids and set(invalid["notEntitled"]) == set(request.price_feed_ids or ()):
                return _refused(number, f"not entitled to feeds {invalid['notEntitled']}")
            return _refused(number, f"invalid feeds: { {why: ids for why, ids in invalid.items() if ids} }")
        socket.subscriptions[number] = _Subscription(request, feed_ids, self._now_us())
        if not ignored:
            return {"type": "subscribed", "subscriptionId": number}
        told = {"subscriptionId": number, "subscribedFeedIds": feed_ids, "ignoredInvalidFeedIds": invalid}
        return {"type": "subscribedWithInvalidFeedIdsIgnored"} | told

    def _sorted_out(self, request: _Request) -> tuple[list[int], dict[str, list[int | str]]]:
        """The feeds that can be served, in the order of the request, and the others by reason."""
        invalid: dict[str, list[int | str]] = {
            why: [] for why in ("unknownIds", "unknownSymbols", "unsupportedChannels", "unstable", "notEntitled")
        }
        feed_ids: list[int] = []
        played = {feed for feed, oracle in self._world.keys if oracle == LAZER}
        feed_of = self._world.catalogue.of_pro_id
        id_of_symbol = {f"Crypto.{feed}": feed_id for feed_id, feed in feed_of.items()} if request.symbols else {}
        for asked in [*(request.price_feed_ids or ()), *(request.symbols or ())]:
            feed_id = id_of_symbol.get(asked, -1) if isinstance(asked, str) else asked
            feed = feed_of.get(feed_id)
            if feed is None or feed not in played:
                invalid["unknownSymbols" if isinstance(asked, str) else "unknownIds"].append(asked)
            elif any(fault.hits(LAZER, feed) for fault in self._faults("not_entitled")):
                invalid["notEntitled"].append(feed_id)
            elif feed in SLOW_FEEDS and request.channel in ("real_time", "fixed_rate@50ms"):
                invalid["unsupportedChannels"].append(feed_id)
            else:
                feed_ids.append(feed_id)
        return feed_ids, invalid

    # The stream.

    def tell(self, changes: Sequence[Change]) -> None:
        """Send what is due: on a fixed channel at each instant of its grid, else when a feed has a new price."""
        if not self._sockets or self._faults("half_open"):
            return
        assets = self._world.catalogue.assets
        news = {assets[one.feed].pro_id: one.at_us for one in changes if one.oracle == LAZER and one.held is not None}
        now_us = self._now_us()
        for socket in self._sockets:
            for subscription in socket.subscriptions.values():
                period_us = _PERIODS_US.get(subscription.request.channel)
                if period_us is None:
                    due_us = max((news[one] for one in subscription.feed_ids if one in news), default=0)
                else:
                    due_us = now_us // period_us * period_us
                if due_us > subscription.sent_us:
                    subscription.sent_us = due_us
                    frame = self._update(subscription, due_us)
                    if frame is not None:
                        socket.put(self._broken(frame))

    def _update(self, subscription: _Subscription, timestamp_us: int) -> bytes | None:
        request, silent = subscription.request, self._faults("silent")
        feeds = []
        for feed_id in subscription.feed_ids:
            feed = self._world.catalogue.of_pro_id[feed_id]
            hit = [one for one in silent if one.hits(LAZER, feed)]
            if not any(one.fault.mode != "once" or subscription.since_us < one.start_us for one in hit):
                feeds.append(_feed(feed_id, self._world.held(feed, LAZER), request.properties))
        if not feeds:
            return None
        for fault in self._faults("forged"):
            if fault.fault.mode == "old":
                key = (fault.number, *subscription.feed_ids, *request.properties)
                timestamp_us, feeds = self._first_told.setdefault(key, (timestamp_us, feeds))
        update: dict[str, object] = {"type": "streamUpdated", "subscriptionId": request.subscription_id}
        if request.parsed:
            update["parsed"] = {"timestampUs": str(timestamp_us), "priceFeeds": [_parsed(feed) for feed in feeds]}
        for form in request.formats:
            data = self._signed(_FORMATS[form], timestamp_us, _CHANNEL_IDS[request.channel], feeds)
            text = data.hex() if request.json_binary_encoding == "hex" else b64encode(data).decode()
            update[form] = {"encoding": request.json_binary_encoding, "data": text}
        return orjson.dumps(update)

    def _signed(self, form: Format, timestamp_us: int, channel: int, feeds: Sequence[LazerFeed]) -> bytes:
        modes = [fault.fault.mode or "signers" for fault in self._faults("forged")]
        if "unsigned" in modes:
            form = "leUnsigned"
        signer = stranger() if "signers" in modes else simulated_signer()
        data = signer.message(form, timestamp_us, channel, feeds)
        if "price" not in modes:
            return data
        changed = [msgspec.structs.replace(feed, price=(feed.price or 0) + 1) for feed in feeds]
        return data[: -len(_payload(data))] + _payload(signer.message(form, timestamp_us, channel, changed))

    @property
    def sockets(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    async def wait_for_subscriptions(self, count: int) -> None:
        """Return as soon as so many subscriptions stand."""
        while sum(len(socket.subscriptions) for socket in self._sockets) < count:
            self._subscribed.clear()
            await self._subscribed.wait()

    async def close(self) -> None:
        """End every socket in good order."""
        for socket in tuple(self._sockets):
            socket.end()


def _refused(number: int, reason: str) -> dict[str, object]:
    return {"type": "subscriptionError", "subscriptionId": number, "error": reason}


def _senseless(request: _Request) -> str | None:
    """Why a subscription makes no sense, whatever its feeds."""
    if (request.price_feed_ids is None) is (request.symbols is None):
        return "either priceFeedIds or symbols must be given"
    if len(request.price_feed_ids or request.symbols or ()) > _MAX_FEEDS:
        return f"more than {_MAX_FEEDS} feeds"
    if request.channel not in _CHANNEL_IDS:
        return f"unknown channel {request.channel!r}"
    unknown = [one for one in (*request.properties, *request.formats) if one not in (*_PROPERTIES, *_FORMATS)]
    if unknown or not request.properties:
        return f"unknown property or format {unknown[0]!r}" if unknown else "no properties"
    if request.delivery_format != "json" or request.json_binary_encoding not in ("base64", "hex"):
        return "only JSON with base64 or hex is served here"
    return None


def _feed(feed_id: int, held: Held | None, properties: Sequence[str]) -> LazerFeed:
    names = tuple(dict.fromkeys(_PROPERTIES[name] for name in properties))
    if held is None:
        return LazerFeed(feed_id, names, exponent=EXPO, publisher_count=0, market_session=0)
    half = max(1, held.mantissa * _SPREAD_PPM // 2_000_000)
    return LazerFeed(
        feed_id,
        names,
        price=held.mantissa,
        best_bid_price=held.mantissa - half,
        best_ask_price=held.mantissa + half,
        publisher_count=_PUBLISHERS,
        exponent=EXPO,
        confidence=held.conf,
        market_session=0,
        ema_price=held.ema,
        ema_confidence=held.ema_conf,
        feed_update_timestamp=held.publish_us,
    )


def _parsed(feed: LazerFeed) -> dict[str, object]:
    """The JSON beside a payload: prices as text, what is absent left out."""
    out: dict[str, object] = {"priceFeedId": feed.feed_id}
    for name, field in _PROPERTIES.items():
        value = getattr(feed, field)
        if field in feed.properties and value is not None:
            out[name] = str(value) if field.endswith("price") else value
    if "marketSession" in out:
        out["marketSession"] = "regular"
    return out


def _payload(message: bytes) -> bytes:
    """The payload at the end of a message."""
    return Lazer.decode(message).payload
