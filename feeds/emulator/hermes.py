"""One Hermes host: REST snapshot, stream of server-sent events and metadata, in the shapes of the real server.

Sources: Hermes' OpenAPI (0.12.0) and its server's behaviour. ``binary`` is signed with test keys
(:mod:`feeds.emulator.pyth_signing`). A key is asked for on price routes; metadata is open.
"""

import asyncio
import base64
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from msgspec.structs import replace

from feeds.emulator.accounts import EXPO, Held
from feeds.emulator.oracles import HERMES
from feeds.emulator.pyth_signing import simulated_signer, stranger
from feeds.emulator.server import Server
from feeds.emulator.world import Change, World
from feeds.pyth.accumulator import PriceMessage, encode_price

KEEPALIVE_US = 15_000_000
_QUEUE_EVENTS = 1_000
_HEX_ID = re.compile(r"(?:0[xX])?([0-9a-fA-F]{64})")
_IDS = re.compile(r"ids(\[[0-9]*\])?")
ASSET_TYPES = (
    *("crypto", "fx", "equity", "metal", "rates", "crypto_redemption_rate", "commodities", "crypto_index"),
    *("crypto_nav", "eco", "kalshi"),
)
_TRUE, _FALSE = frozenset({"true"}), frozenset({"false"})


class _Query:
    """The parameters of a price route. Raises HTTPBadRequest for what the server can't read."""

    def __init__(self, text: str) -> None:
        self.ids: list[str] = []
        self.flags = {"parsed": True, "ignore_invalid_price_ids": False}
        self.flags |= {"allow_unordered": False, "benchmarks_only": False}
        self.encoding = "hex"
        for key, value in parse_qsl(text, keep_blank_values=True):
            if _IDS.fullmatch(key):
                match = _HEX_ID.fullmatch(value)
                if match is None:
                    raise _bad_query(f"{key}: invalid price feed id {value[:80]!r}")
                self.ids.append(match[1].lower())
            elif key in self.flags:
                if value not in _TRUE | _FALSE:
                    raise _bad_query(f"{key}: provided string was not `true` or `false`")
                self.flags[key] = value in _TRUE
            elif key == "encoding":
                if value not in ("hex", "base64"):
                    raise _bad_query(f"encoding: unknown variant `{value[:20]}`, expected `hex` or `base64`")
                self.encoding = value
        if not self.ids:
            raise _bad_query("missing field `ids`")
        self.ids = list(dict.fromkeys(self.ids))


def _bad_query(reason: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"Failed to deserialize query string: {reason}")


@lru_cache(maxsize=1_024)
def price_update(
    prices: tuple[tuple[str, Held], ...], query_encoding: str, *, parsed: bool, forged: str | None = None
) -> bytes:
    """The body of REST and of each event, for feeds by their ids; one signed update for each slot of theirs.

    ``forged`` is a mode of the fault of this name. Bodies are kept: hosts of one world tell the same.
    """
    by_slot: dict[int, list[tuple[str, Held]]] = {}
    for feed_id, held in prices:
        by_slot.setdefault(held.price_slot, []).append((feed_id, held))
    blobs = [blob for slot in sorted(by_slot) for blob in signed(slot, tuple(by_slot[slot]), forged)]
    as_text = bytes.hex if query_encoding == "hex" else lambda blob: base64.b64encode(blob).decode()
    body: dict[str, object] = {"binary": {"encoding": query_encoding, "data": [as_text(blob) for blob in blobs]}}
    if parsed:
        body["parsed"] = [_parsed(feed_id, held) for feed_id, held in prices]
    return orjson.dumps(body)


@lru_cache(maxsize=1_024)
def signed(slot: int, prices: tuple[tuple[str, Held], ...], forged: str | None = None) -> list[bytes]:
    """Updates of prices of one slot, signed when the last of them was emitted. Kept for other streams and hosts."""
    if forged == "unsigned":
        return []
    messages = [
        PriceMessage(
            bytes.fromhex(feed_id),
            held.mantissa,
            held.conf,
            EXPO,
            held.publish_s,
            held.prev_publish_us // 1_000_000,
            held.ema,
            held.ema_conf,
        )
        for feed_id, held in prices
    ]
    emitted_s = max(held.emit_us for _, held in prices) // 1_000_000
    blobs = (stranger() if forged == "signers" else simulated_signer()).updates(messages, emitted_s, slot)
    if forged == "price":
        true, other = (encode_price(one) for one in (messages[0], replace(messages[0], price=messages[0].price + 1)))
        return [blob.replace(true, other) for blob in blobs]
    return blobs


def _parsed(feed_id: str, held: Held) -> dict[str, object]:
    def price(mantissa: int, conf: int) -> dict[str, object]:
        return {"price": str(mantissa), "conf": str(conf), "expo": EXPO, "publish_time": held.publish_s}

    return {
        "id": feed_id,
        "price": price(held.mantissa, held.conf),
        "ema_price": price(held.ema, held.ema_conf),
        "metadata": {
            "slot": held.price_slot,
            "proof_available_time": held.emit_us // 1_000_000,
            "prev_publish_time": held.prev_publish_us // 1_000_000,
        },
    }


class _Stream:
    """One open stream: what it asked for, and a bounded queue of events."""

    def __init__(self, ids: frozenset[str], query: _Query, now_us: int) -> None:
        self.ids = ids
        self.query = query
        self.sent_us = now_us
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_EVENTS)

    def put(self, event: bytes | None) -> None:
        """Queue an event (None ends the stream). A slow consumer is told so and dropped, as the server does."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            while not self.events.empty():
                self.events.get_nowait()
            self.events.put_nowait(b"event: error\ndata: Slow consumer: disconnected\n\n")
            self.events.put_nowait(None)


class HermesServer(Server):
    """A host under a name, over a world that others share. With ``key`` price routes want ``Authorization: Bearer``."""

    ORACLE: ClassVar[str | None] = HERMES

    def __init__(self, name: str, world: World, now_us: Callable[[], int], *, key: str | None = None) -> None:
        super().__init__(name, world, now_us)
        self._key = key
        self._streams: set[_Stream] = set()
        self._streaming = asyncio.Event()
        self._first_told: dict[int, dict[str, Held]] = {}
        """By fault and feed: what is told over and over."""

    def routes(self, app: web.Application) -> None:
        """Add the routes at the root and under ``/hermes``."""
        for prefix in ("", "/hermes"):
            app.router.add_get(f"{prefix}/v2/updates/price/latest", self._latest)
            app.router.add_get(f"{prefix}/v2/updates/price/stream", self._stream)
            app.router.add_get(f"{prefix}/v2/price_feeds", self._price_feeds)
            app.router.add_get(f"{prefix}/live", self._live)
            app.router.add_get(f"{prefix}/ready", self._live)

    @property
    def _feeds(self) -> list[str]:
        return [feed for feed, oracle in self._world.keys if oracle == HERMES]

    # Requests.

    async def _admit(self, request: web.Request) -> tuple[_Query, list[str]]:
        """Slow down, refuse, check the key, and read the query: the ids that exist."""
        await self._hold_up("Rate limit exceeded")
        if self._faults("unauthorized") or not self._has_key(request):
            raise web.HTTPUnauthorized(text="unauthorized")
        query = _Query(request.query_string)
        feed_of = self._world.catalogue.of_hermes_id
        for fault in self._faults("not_entitled"):
            refused = [one for one in query.ids if one in feed_of and fault.hits(HERMES, feed_of[one])]
            if refused:
                raise web.HTTPForbidden(text=f"Not entitled: feed {refused[0]}")
        missing = [one for one in query.ids if self._world.held(feed_of.get(one, ""), HERMES) is None]
        if missing and not query.flags["ignore_invalid_price_ids"]:
            raise web.HTTPNotFound(text=f"Price ids not found: {', '.join('0x' + one for one in missing)}")
        return query, [one for one in query.ids if one not in missing]

    def _has_key(self, request: web.Request) -> bool:
        if self._key is None:
            return True
        header = request.headers.get("Authorization")
        if header is None:
            return request.query.get("ACCESS_TOKEN") == self._key
        scheme, _, token = header.partition(" ")
        return scheme.lower() == "bearer" and token.strip() == self._key

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def _latest(self, request: web.Request) -> web.Response:
        query, ids = await self._admit(request)
        feed_of = self._world.catalogue.of_hermes_id
        prices = [(one, held) for one in ids if (held := self._world.held(feed_of[one], HERMES)) is not None]
        body = self._broken(self._body(prices, query))
        return web.Response(body=body, content_type="application/json")

    async def _price_feeds(self, request: web.Request) -> web.Response:
        query = request.query.get("query", "").lower()
        kind = request.query.get("asset_type")
        if kind is not None and kind.lower() not in ASSET_TYPES:
            expected = ", ".join(f"`{one}`" for one in ASSET_TYPES)
            raise _bad_query(f"asset_type: unknown variant `{kind[:40]}`, expected one of {expected}")
        played = set(self._feeds)
        out = [
            {"id": one, "attributes": _attributes(feed)}
            for one, feed in self._world.catalogue.of_hermes_id.items()
            if feed in played and query in f"crypto.{feed}".lower() and (kind or "crypto").lower() == "crypto"
        ]
        return web.Response(body=orjson.dumps(out), content_type="application/json")

    # The stream.

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        query, _ = await self._admit(request)
        stream = _Stream(frozenset(query.ids), query, self._now_us())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        self._streams.add(stream)
        self._streaming.set()
        try:
            while (event := await stream.events.get()) is not None:
                await response.write(event)
        except ConnectionError:
            pass
        finally:
            self._streams.discard(stream)
        return response

    def tell(self, changes: Sequence[Change]) -> None:
        """Send events for changes, one for each slot, and comments to streams that were idle for 15 s."""
        if self._faults("half_open"):
            return
        by_slot: dict[int, list[tuple[str, Held]]] = {}
        for feed, held in self._told(changes):
            by_slot.setdefault(held.price_slot, []).append((self._world.catalogue.assets[feed].hermes_id, held))
        now_us = self._now_us()
        for stream in self._streams:
            stream.sent_us = min(stream.sent_us, now_us)  # the clock may have been stepped back
            for prices in by_slot.values():
                self._send(stream, prices, now_us)
            if now_us - stream.sent_us >= KEEPALIVE_US:
                stream.sent_us = now_us
                stream.put(b":\n\n")

    def _send(self, stream: _Stream, prices: list[tuple[str, Held]], now_us: int) -> None:
        flags = stream.query.flags
        wanted = []
        for feed_id, held in prices:
            if feed_id not in stream.ids:
                continue
            if flags["benchmarks_only"] and held.prev_publish_us // 1_000_000 == held.publish_s:
                continue
            wanted.append((feed_id, held))
        if wanted:
            stream.sent_us = now_us
            body = self._broken(self._body(wanted, stream.query))
            stream.put(b"data:" + body + b"\n\n")

    def _body(self, prices: Sequence[tuple[str, Held]], query: _Query) -> bytes:
        forged = next((fault.fault.mode or "signers" for fault in self._faults("forged")), None)
        for fault in self._faults("forged"):
            if fault.fault.mode == "old":
                first = self._first_told.setdefault(fault.number, {})
                prices = [(feed_id, first.setdefault(feed_id, held)) for feed_id, held in prices]
        return price_update(tuple(prices), query.encoding, parsed=query.flags["parsed"], forged=forged)

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    async def wait_for_streams(self, count: int) -> None:
        """Return as soon as so many streams are open."""
        while self.streams < count:
            self._streaming.clear()
            await self._streaming.wait()

    async def close(self) -> None:
        """End every stream in good order."""
        for stream in tuple(self._streams):
            stream.put(None)


def _attributes(feed: str) -> dict[str, str]:
    """What the real server says of a feed; every value is a string."""
    base, _, quote = feed.partition("/")
    in_words = "US DOLLAR" if quote == "USD" else quote
    return {
        "asset_type": "Crypto",
        "base": base,
        "description": f"{base} / {in_words} (SIMULATED)",
        "display_symbol": feed,
        "generic_symbol": f"{base}{quote}",
        "quote_currency": quote,
        "schedule": "America/New_York;O,O,O,O,O,O,O;",
        "symbol": f"Crypto.{feed}",
    }
