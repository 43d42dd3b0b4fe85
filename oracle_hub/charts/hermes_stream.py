"""Hermes' stream of server-sent events: an event whenever a price that was asked for has news.

A price that is over has no shape of Hermes', and an event without prices breaks its clients. So it is told in a
comment, which they all pass over: ``: SOL/USD none too_few_sources``. Whoever cares reads
``oracle_hub.valid_until_us``.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import cors_headers, encode
from oracle_hub.charts.context import Context
from oracle_hub.charts.hermes_query import Query, ids_not_found
from oracle_hub.charts.hermes_quotes import Absent, Quotes
from oracle_hub.charts.hermes_shapes import Quote, price_update
from oracle_hub.charts.live import Listener, Update
from oracle_hub.charts.signed import Signed
from oracle_hub.charts.sockets import hide_little, taken
from oracle_hub.client import Price

TIMEOUT_TEXT = "Connection timeout reached (24h)"


class StreamLimits(Protocol):
    """What a connection that stays open is bound by, in seconds."""

    @property
    def connection_s(self) -> float: ...
    @property
    def keepalive_s(self) -> float: ...
    @property
    def ping_s(self) -> float: ...
    @property
    def write_s(self) -> float: ...


class News:
    """Tells news of one connection from what it was told already. One entry per feed."""

    def __init__(self, quotes: Quotes, *, benchmarks_only: bool = False) -> None:
        self._quotes = quotes
        self._benchmarks_only = benchmarks_only
        self._told: dict[str, tuple[object, ...]] = {}

    def forget(self, feed: str) -> None:
        """It was told nothing of this feed."""
        self._told.pop(feed, None)

    def of(self, price_id: str, update: Update) -> Quote | Absent | None:
        """What there is to tell; None where it is known."""
        one = self._quotes.quote(price_id, update)
        if isinstance(one, Absent):
            said: tuple[object, ...] = ("absent", one.reason)
        elif self._benchmarks_only:
            if one.earlier_publish_s is None:
                return None  # not known to be the first of its second
            said = (one.publish_s,)
            one = msgspec.structs.replace(one, previous_publish_s=one.earlier_publish_s)
        else:
            said = (one.mantissa, one.provenance.decided_us, one.publish_s, one.provenance.valid_until_us)
        if self._told.get(update.feed) == said:
            return None
        self._told[update.feed] = said
        return one


async def learn_marked(signed: Signed, context: Context, listener: Listener) -> None:
    """Have at hand what was signed of the prices that are told next. They are looked at again when they are told."""

    def prices() -> list[Price]:
        found = (context.live.update(feed).price for feed in listener.marked)
        return [price for price in found if price is not None]

    await signed.learn(prices)


class HermesStream:
    """``/v2/updates/price/stream``."""

    def __init__(self, context: Context, quotes: Quotes, signed: Signed, limits: StreamLimits) -> None:
        self._context = context
        self._quotes = quotes
        self._signed = signed
        self._limits = limits

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer until the client leaves, takes nothing more, a day is over, or we go away."""
        query = Query(request.query_string)
        found, unknown = self._quotes.sort(query.required_ids())
        if unknown and not query.ignore_invalid:
            raise ids_not_found(unknown)
        with self._context.listener(request):
            await self._quotes.open(found)
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-cache",
                    "X-Accel-Buffering": "no",
                    **cors_headers(request.headers.get("Origin")),
                }
            )
            async with self._context.live.listen(found) as listener:
                listener.mark(found)
                await response.prepare(request)
                hide_little(request.transport)
                try:
                    await self._follow(_Writer(request, response, self._limits.write_s), listener, found, query)
                except (TimeoutError, ConnectionError):
                    if request.transport is not None:
                        request.transport.abort()  # nothing of what waits for it is worth being read
        return response

    async def _follow(self, writer: "_Writer", listener: Listener, found: dict[str, str], query: Query) -> None:
        limits, clock = self._limits, asyncio.get_running_loop().time
        news = News(self._quotes, benchmarks_only=query.benchmarks_only)
        end_s = clock() + limits.connection_s
        while not listener.closed:
            await learn_marked(self._signed, self._context, listener)
            told = [news.of(found[update.feed], update) for update in listener.take()]
            text = self._events([one for one in told if one is not None], query)
            if clock() >= end_s:
                text += f"event: error\ndata: {TIMEOUT_TEXT}\n\n".encode()
            if text:
                await writer.write(text)
            if clock() >= end_s:
                return
            woken = await listener.wait(min(limits.keepalive_s, max(0.0, end_s - clock())))
            if not woken and clock() < end_s:
                await writer.write(b":\n\n")

    def _events(self, told: Sequence[Quote | Absent], query: Query) -> bytes:
        """One event with all prices, and a comment for each feed that has none."""
        absent = [one for one in told if isinstance(one, Absent)]
        text = b"".join(f": {one.feed} none {one.reason}\n\n".encode() for one in absent)
        quotes = [one for one in told if isinstance(one, Quote)]
        if quotes:
            simulated = self._quotes.simulated
            signed = self._signed.all_of(quotes)
            body = price_update(
                quotes, query.encoding, signed=signed, parsed=query.parsed, absent={}, simulated=simulated
            )
            text += b"data:" + encode(body) + b"\n\n"
        return text


class _Writer:
    """Writes, and waits until the reader has taken it: what is told next is what holds then."""

    def __init__(self, request: web.Request, response: web.StreamResponse, timeout_s: float) -> None:
        self._request = request
        self._response = response
        self._timeout_s = timeout_s

    async def write(self, text: bytes) -> None:
        """Raises TimeoutError: the reader takes nothing."""
        async with asyncio.timeout(self._timeout_s):
            await self._response.write(text)
        await taken(self._request.transport, self._timeout_s)
