"""UDF, the protocol of TradingView's charts, at ``/udf`` and where the retired public endpoint was.

What goes wrong is told as the protocol tells it: status 200 and ``{"s": "error", "errmsg"}``, since its clients read
bodies and not statuses. Only limits have statuses of their own, with the same body.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from oracle_hub.charts.answers import ChartsCode, Refused, cors_headers, json_answer
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.context import RETRY_AFTER_S, Context
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.charts.symbols import EXCHANGE, Symbol, Symbols
from oracle_hub.charts.udf_history import Asked, asked, integer, page_text, read_page, resolution_of, seconds
from oracle_hub.charts.udf_marks import Groups, by_bar, marks, timescale_marks
from oracle_hub.charts.udf_quotes import quote
from oracle_hub.charts.udf_stream import WRITE_TIMEOUT_S, stream
from oracle_hub.errors import ChartsError, OracleHubError

PREFIXES = ("/udf", "/v1/shims/tradingview")
GROUP = "oraclehub_crypto"
MAX_BARS = 600_000
"""Bars in one answer: a year of minutes, which clients of the retired endpoint ask for at once."""
LARGE_BARS = 20_000
MAX_LARGE = 4
"""Answers that may have more than ``LARGE_BARS`` bars, at once: each is some tens of MB at most."""
LARGE_WAIT_S = 10.0
"""So long such a request waits for its turn."""
MAX_QUOTES = 100
MAX_FOUND = 100
MAX_CHANGES = 2_000
"""Changes of state that the marks of one answer tell; where there are more, the last of them."""

_SECONDS = tuple(code.removesuffix("S") for code in RESOLUTIONS if code.endswith("S"))
_INTRADAY = tuple(code for code in RESOLUTIONS if code.isdigit())
_CODES = (*RESOLUTIONS, "D", "W", "M")

CONFIG: Mapping[str, object] = {
    "supported_resolutions": _CODES,
    "supports_group_request": False,
    "supports_marks": True,
    "supports_search": True,
    "supports_timescale_marks": True,
    "supports_time": True,
    "exchanges": [
        {"value": "", "name": "All", "desc": ""},
        {"value": EXCHANGE, "name": EXCHANGE, "desc": "oracle-hub"},
    ],
    "symbols_types": [{"name": "All types", "value": ""}, {"name": "Crypto", "value": "crypto"}],
}

_FRESH = {"Cache-Control": "no-store"}
_CHUNK_BYTES = 1 << 18

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Udf:
    """The answers, by the last part of their paths."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._feeds: tuple[object, ...] = ()
        self._symbols = Symbols(())
        self._large = asyncio.Semaphore(MAX_LARGE)

    def symbols(self) -> Symbols:
        """Those of the feeds that the hub has now."""
        feeds = tuple(self._context.live.feeds.values())
        if feeds != self._feeds:
            self._feeds, self._symbols = feeds, Symbols((feed.name, feed.expo) for feed in feeds)
        return self._symbols

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Every path under this prefix."""

        async def streaming(request: web.Request) -> web.StreamResponse:
            return await stream(request, self._context, lambda: self.symbols().all)

        answers: dict[str, _Answer] = {
            "config": self.config,
            "symbols": self.symbol,
            "symbol_info": self.symbol_info,
            "groups": self.groups,
            "search": self.search,
            "history": self.history,
            "time": self.time,
            "quotes": self.quotes,
            "marks": self.marks,
            "timescale_marks": self.timescale_marks,
        }
        found = [web.get(f"{prefix}/{name}", _handler(answer)) for name, answer in answers.items()]
        return [*found, web.get(f"{prefix}/streaming", _handler(streaming), allow_head=False)]

    async def config(self, request: web.Request) -> web.StreamResponse:
        """What there is: resolutions, search, marks, time."""
        return json_answer(CONFIG)

    async def symbol(self, request: web.Request) -> web.StreamResponse:
        """One symbol: how fine its prices are, and of which bars it has history."""
        found = self._resolve(request.query)
        return json_answer(
            {
                "name": found.name,
                "full_name": found.ticker,
                "ticker": found.ticker,
                "description": self._description(found),
                "type": found.kind,
                "session": "24x7",
                "timezone": "Etc/UTC",
                "exchange": EXCHANGE,
                "listed_exchange": EXCHANGE,
                "format": "price",
                "minmov": 1,
                "pricescale": found.pricescale,
                "has_seconds": True,
                "seconds_multipliers": _SECONDS,
                "has_intraday": True,
                "intraday_multipliers": _INTRADAY,
                "has_daily": True,
                "daily_multipliers": ["1"],
                "has_weekly_and_monthly": True,
                "weekly_multipliers": ["1"],
                "monthly_multipliers": ["1"],
                "has_empty_bars": False,
                "has_no_volume": True,
                "visible_plots_set": "ohlc",
                "supported_resolutions": _CODES,
                "data_status": "streaming",
                "currency_code": found.quote,
            }
        )

    async def groups(self, request: web.Request) -> web.StreamResponse:
        """The one group of all symbols."""
        return json_answer({"s": "ok", "d": {"groups": [{"id": GROUP}]}})

    async def symbol_info(self, request: web.Request) -> web.StreamResponse:
        """Every symbol as columns; a value in place of a column holds for all."""
        if request.query.get("group", GROUP) != GROUP:
            raise ChartsError(f"group: there is only {GROUP}")
        return json_answer(_symbol_info(self.symbols().all))

    async def search(self, request: web.Request) -> web.StreamResponse:
        """Symbols by a part of their name or description, the nearest first."""
        query = request.query
        limit = integer(query, "limit", default=15)
        if limit < 0:
            raise ChartsError(f"limit: {limit} is below 0")
        found = self.symbols().search(
            query.get("query", ""),
            kind=query.get("type", ""),
            exchange=query.get("exchange", ""),
            limit=min(limit, MAX_FOUND),
        )
        return json_answer(
            [
                {
                    "symbol": entry.name,
                    "full_name": entry.ticker,
                    "description": self._description(entry),
                    "exchange": EXCHANGE,
                    "ticker": entry.ticker,
                    "type": entry.kind,
                }
                for entry in found
            ]
        )

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Bars. Long answers are few at a time, from the read until they are sent: each is held as a whole."""
        feed, wanted = self._resolve(request.query).feed, asked(request.query)
        if wanted.most_bars <= LARGE_BARS:
            return web.Response(text=await self._page(feed, wanted), content_type="application/json", headers=_FRESH)
        try:
            async with asyncio.timeout(LARGE_WAIT_S):
                await self._large.acquire()
        except TimeoutError:
            message = (
                f"{MAX_LARGE} answers of more than {LARGE_BARS} bars are being sent; ask again, or for less at once"
            )
            raise Refused(503, ChartsCode.BUSY, message, retry_after_s=RETRY_AFTER_S) from None
        try:
            return await _send(request, (await self._page(feed, wanted)).encode())
        finally:
            self._large.release()

    async def _page(self, feed: str, wanted: Asked) -> str:
        store, now_us = self._context.store, self._context.live.now_us()
        return await self._context.read(lambda: page_text(read_page(store, feed, wanted, now_us, MAX_BARS)))

    async def time(self, request: web.Request) -> web.StreamResponse:
        """The hub's clock in seconds, as plain text."""
        return web.Response(text=str(self._context.live.now_us() // SECOND_US), headers=_FRESH)

    async def quotes(self, request: web.Request) -> web.StreamResponse:
        """Prices of now, each with its day so far. A feed with no price has an error in its place."""
        names = [name for name in request.query.get("symbols", "").split(",") if name]
        if not 1 <= len(names) <= MAX_QUOTES:
            raise ChartsError(f"symbols: 1 to {MAX_QUOTES} names with commas between them are needed, not {len(names)}")
        return json_answer({"s": "ok", "d": [await self._quote(name) for name in names]})

    async def _quote(self, name: str) -> dict[str, object]:
        try:
            found = self.symbols().resolve(name)
            days = await self._days(found.feed)
            return quote(name, found, self._context.live.price(found.feed), days, self._context.live.now_us())
        except OracleHubError as error:
            return {"s": "error", "n": name, "errmsg": str(error), "v": {}}

    async def _days(self, feed: str) -> Sequence[Bar]:
        """Yesterday and today; nothing where the store fails or is too busy: the price is known without it."""
        before_us = self._context.live.now_us() + 1
        try:
            return await self._context.read(self._context.store.last_bars, feed, Resolution.D1, before_us, 2)
        except Refused:
            return ()

    async def marks(self, request: web.Request) -> web.StreamResponse:
        """Changes of state on the bars."""
        return json_answer(marks(await self._changes(request.query)))

    async def timescale_marks(self, request: web.Request) -> web.StreamResponse:
        """Where the feed went degraded or lost its price, under the bars."""
        return json_answer(timescale_marks(await self._changes(request.query)))

    def _description(self, found: Symbol) -> str:
        """It is what a chart shows beside the name: so it says when prices are not the market's."""
        return f"{found.description} (SIMULATED)" if self._context.live.simulated else found.description

    def _resolve(self, query: Mapping[str, str]) -> Symbol:
        name = query.get("symbol", "")
        if not name:
            raise ChartsError("symbol: a name is needed")
        return self.symbols().resolve(name)

    async def _changes(self, query: Mapping[str, str]) -> Groups:
        feed, resolution = self._resolve(query).feed, resolution_of(query)
        from_us = resolution.start_us(seconds(query, "from") * SECOND_US)
        to_us = resolution.end_us(seconds(query, "to") * SECOND_US)
        if from_us >= to_us:
            raise ChartsError("from, to: the range is empty")
        store = self._context.store
        return await self._context.read(
            lambda: by_bar(
                store.marks(feed, from_us, to_us, MAX_CHANGES),
                resolution,
                lambda start_us: store.previous_start_us(feed, resolution, start_us + 1),
            )
        )


def routes(context: Context) -> list[web.RouteDef]:
    """UDF under both prefixes."""
    udf = Udf(context)
    return [route for prefix in PREFIXES for route in udf.routes(prefix)]


def _handler(answer: _Answer) -> _Answer:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await answer(request)
        except OracleHubError as error:
            return json_answer({"s": "error", "errmsg": str(error)})
        except Refused as refused:
            return json_answer({"s": "error", "errmsg": str(refused)}, refused.status, refused.headers)

    return handle


async def _send(request: web.Request, body: bytes) -> web.StreamResponse:
    """Send a long body piece by piece, and give up on a client that takes none of it."""
    response = web.StreamResponse(headers={**_FRESH, **cors_headers(request.headers.get("Origin"))})
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    for start in range(0, len(body), _CHUNK_BYTES):
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(memoryview(body)[start : start + _CHUNK_BYTES])
    await response.write_eof()
    return response


def _symbol_info(symbols: Sequence[Symbol]) -> dict[str, object]:
    """Keys of several words in both spellings: clients of the retired endpoint have seen both."""
    table: dict[str, object] = {
        "symbol": [entry.name for entry in symbols],
        "ticker": [entry.ticker for entry in symbols],
        "description": [entry.description for entry in symbols],
        "currency": [entry.quote for entry in symbols],
        "base_currency": [entry.base for entry in symbols],
        "type": [entry.kind for entry in symbols],
        "typespecs": [[entry.kind] for entry in symbols],
        "pricescale": [entry.pricescale for entry in symbols],
        "minmovement": 1,
        "minmovement2": 0,
        "fractional": False,
        "pointvalue": 1,
        "root": None,
        "root_description": None,
        "expiration": None,
        "exchange_listed": EXCHANGE,
        "exchange_traded": EXCHANGE,
        "timezone": "Etc/UTC",
        "session_regular": "24x7",
        "has_intraday": True,
        "has_no_volume": True,
        "has_daily": True,
        "has_weekly_and_monthly": True,
        "intraday_multipliers": [_INTRADAY for _ in symbols],
        "weekly_multipliers": [["1"] for _ in symbols],
        "monthly_multipliers": [["1"] for _ in symbols],
        "supported_resolutions": [_CODES for _ in symbols],
        "bar_source": "trade",
        "bar_transform": "none",
        "bar_fillgaps": False,
    }
    columns = {key: value if isinstance(value, list) else [value] * len(symbols) for key, value in table.items()}
    return {"s": "ok", **columns, **{key.replace("_", "-"): value for key, value in columns.items() if "_" in key}}
