"""``/streaming`` of the retired chart endpoint: prices as lines of JSON on one answer that never ends.

Every symbol comes on every stream; a client picks by ``id``. What its clients do with a line is to change the last bar,
or to begin a new one. So that these bars are those of ``/history``, the price in force is told again when a minute
begins.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import cors_headers
from oracle_hub.charts.context import Context
from oracle_hub.charts.live import Listener, Update
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US
from oracle_hub.charts.sockets import hide_little, taken
from oracle_hub.charts.symbols import Symbol
from oracle_hub.core.price import decimal_text

WRITE_TIMEOUT_S = 10.0
"""A client that takes nothing for so long is cut off: what waits for it is old."""


class Lines:
    """What one client is told: news only, and nothing about a price that is over."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int] | str] = {}

    def line(self, symbol: Symbol, update: Update, now_us: int) -> str | None:
        """The line of a feed as it stands at ``now_us``; None if it was told already.

        A price is ``{"id", "p", "t", "f": "t", "s": 0}``: ``t`` is when it was decided, or when this minute began. No
        price is a line without ``id`` and ``p``, which clients of prices pass over: ``{"f": "n", "symbol", "state",
        "reason", "t"}``.
        """
        price = update.price
        if price is None:
            reason = _reason(update)
            if self._told.get(symbol.feed) == reason:
                return None
            self._told[symbol.feed] = reason
            told = {"f": "n", "symbol": symbol.ticker, "state": "none", "reason": reason, "t": now_us // SECOND_US}
            return msgspec.json.encode(told).decode()
        at_s = max(price.decided_us, now_us - now_us % MINUTE_US) // SECOND_US
        if self._told.get(symbol.feed) == (price.mantissa, at_s):
            return None
        self._told[symbol.feed] = (price.mantissa, at_s)
        name = msgspec.json.encode(symbol.ticker).decode()
        return f'{{"id":{name},"p":{decimal_text(price.mantissa, price.expo)},"t":{at_s},"f":"t","s":0}}'


def _reason(update: Update) -> str:
    refusal = update.refusal
    if refusal is None:
        return "none"
    return refusal.hub_reason or refusal.reason.value


def heartbeat(now_us: int) -> str:
    """Says that the connection lives, and nothing of any price."""
    return f'{{"T":{now_us // SECOND_US}}}'


async def stream(request: web.Request, context: Context, symbols: Callable[[], Iterable[Symbol]]) -> web.StreamResponse:
    """Answer ``/streaming`` until the client leaves, takes nothing more, or we go away. ``symbols`` gives those of now.

    Raises:
        Refused: there are too many streams.
    """
    with context.listener(request):
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "application/x-ndjson"
        response.headers.update(cors_headers(request.headers.get("Origin")))
        async with context.live.listen() as listener:
            await response.prepare(request)
            hide_little(request.transport)
            with contextlib.suppress(TimeoutError):
                await _tell(request, response, context, listener, symbols)
        return response


async def _tell(
    request: web.Request,
    response: web.StreamResponse,
    context: Context,
    listener: Listener,
    symbols: Callable[[], Iterable[Symbol]],
) -> None:
    live, lines = context.live, Lines()
    beat_us = context.settings.heartbeat_ms * 1000
    minute = next_beat_us = 0
    while not listener.closed:
        now_us = live.now_us()
        known = {symbol.feed: symbol for symbol in symbols()}
        updates = listener.take()
        if now_us // MINUTE_US != minute:
            minute = now_us // MINUTE_US
            updates = [live.update(feed) for feed in known]
        entries = [lines.line(known[update.feed], update, now_us) for update in updates if update.feed in known]
        told = [line for line in entries if line is not None]
        if told or now_us >= next_beat_us:
            next_beat_us = now_us + beat_us
            await _write(request, response, told or [heartbeat(now_us)])
        wake_us = min(next_beat_us, (minute + 1) * MINUTE_US) - live.now_us()
        await listener.wait(max(0, wake_us) / 1e6)


async def _write(request: web.Request, response: web.StreamResponse, lines: list[str]) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write("".join(f"{line}\n" for line in lines).encode())
    try:
        await taken(request.transport, WRITE_TIMEOUT_S)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # what waits in front of this reader is old by now
        raise
