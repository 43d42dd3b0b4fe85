"""Hermes-compatible REST, at the root and under ``/hermes``: clients of Pyth change the URL and get the hub's prices.

Routes, parameters, shapes and texts are those of Hermes 0.12 (its OpenAPI, and what its server answers). A feed that
has no price now is told like an id that does not exist: it is absent, never old. docs/charts.md lists what differs.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from oracle_hub.charts.answers import json_answer
from oracle_hub.charts.context import Context
from oracle_hub.charts.hermes_ids import Ids
from oracle_hub.charts.hermes_query import (
    UPDATE_DATA_NOT_FOUND,
    HermesError,
    Query,
    bad_query,
    ccip_input,
    ids_not_found,
    integer,
)
from oracle_hub.charts.hermes_quotes import Absent, Quotes
from oracle_hub.charts.hermes_shapes import ASSET_TYPES, Quote, feed_metadata, price_feed, price_update
from oracle_hub.charts.hermes_socket import HermesSocket
from oracle_hub.charts.hermes_stream import HermesStream
from oracle_hub.charts.resolutions import SECOND_US
from oracle_hub.charts.signed import Signed

PREFIXES = ("", "/hermes")
ABSENT_HEADER = "Oracle-Hub-Absent"
"""Of answers without a price that was asked for: why, as in ``SOL/USD=too_few_sources``."""

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of connections that stay open. The defaults are those that Hermes' clients expect."""

    connection_s: float = 86_400
    """After a day a stream ends, and its client comes back."""
    keepalive_s: float = 15
    """Of event streams: how often at least something is sent."""
    ping_s: float = 15
    """Of websockets. Clients give up a server that has not pinged them for 33 s."""
    write_s: float = 5
    """A client that takes nothing for so long is cut off: what waits for it is old."""


class Hermes:
    """The answers."""

    def __init__(self, context: Context, limits: Limits) -> None:
        self._context = context
        self._quotes = Quotes(context, Ids(context.settings.pyth_ids))
        self._signed = Signed(context)
        self._stream = HermesStream(context, self._quotes, self._signed, limits)
        self._socket = HermesSocket(context, self._quotes, self._signed, limits)

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Every path under this prefix."""
        answers: dict[str, _Answer] = {
            "/live": self.live,
            "/ready": self.ready,
            "/v2/price_feeds": self.price_feeds,
            "/v2/updates/price/latest": self.latest,
            "/v2/updates/publisher_stake_caps/latest": self.nothing_signed,
            "/v2/updates/twap/{window}/latest": self.twap,
            "/api/latest_price_feeds": self.latest_price_feeds,
            "/api/latest_vaas": self.latest_vaas,
            "/api/get_price_feed": self.get_price_feed,
            "/api/get_vaa": self.get_vaa,
            "/api/get_vaa_ccip": self.get_vaa_ccip,
            "/api/price_feed_ids": self.price_feed_ids,
        }
        found = [web.get(f"{prefix}{path}", _told(answer)) for path, answer in answers.items()]
        streaming = {"/v2/updates/price/stream": self._stream.handle, "/ws": self._socket.handle}
        found += [web.get(f"{prefix}{path}", _told(answer), allow_head=False) for path, answer in streaming.items()]
        # After the fixed paths: it would take them for times.
        return [*found, web.get(f"{prefix}/v2/updates/price/{{publish_time}}", _told(self.at_time))]

    async def index(self, request: web.Request) -> web.StreamResponse:
        """``/hermes/``: the routes."""
        return json_answer(sorted(route.path for route in self.routes("")))

    # Health.

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The process answers."""
        return _text(200, "OK")

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """Whether prices are the hub's newest. The keys are Hermes'; where it has slots, decisions are meant."""
        live = self._context.live
        status = live.status
        if status.connected:
            return _text(200, "OK")
        heard_us = status.heard_us
        evidence = {
            "has_completed_recently": False,
            "is_not_behind": False,
            "is_metadata_loaded": bool(live.feeds),
            "latest_completed_slot": heard_us,
            "latest_observed_slot": heard_us,
            "latest_completed_unix_timestamp": None if heard_us is None else heard_us // SECOND_US,
            "price_feeds_metadata_len": len(self._quotes.served()),
        }
        return json_answer(evidence, 503)

    # The second API.

    async def price_feeds(self, request: web.Request) -> web.StreamResponse:
        """The feeds, by a part of their symbol and by the type of asset."""
        query = Query(request.query_string)
        wanted, asset_type = (query.word("query") or "").lower(), query.word("asset_type")
        if asset_type is not None and asset_type.lower() not in ASSET_TYPES:
            raise bad_query(f"asset_type: unknown variant `{asset_type[:40]}`")
        feeds = self._context.live.feeds
        found = [
            feed_metadata(price_id, feed, feeds[feed].expo) for feed, price_id in sorted(self._quotes.served().items())
        ]
        return json_answer(
            [
                entry
                for entry in found
                if wanted in entry["attributes"]["symbol"].lower()
                and asset_type in (None, "", entry["attributes"]["asset_type"])
            ]
        )

    async def latest(self, request: web.Request) -> web.StreamResponse:
        """The prices that hold now."""
        query = Query(request.query_string)
        quotes, absent = await self._now(query, query.required_ids())
        return self._update(query, quotes, absent)

    async def at_time(self, request: web.Request) -> web.StreamResponse:
        """The first prices that were published at or after a time."""
        text = request.match_info["publish_time"]
        time_s = integer(text)
        if time_s is None:
            raise HermesError(400, f"Invalid URL: Cannot parse `publish_time` with value `{text[:40]}` to a `i64`")
        query = Query(request.query_string)
        quotes, absent = await self._then(query, query.required_ids(), time_s)
        return self._update(query, quotes, absent)

    async def twap(self, request: web.Request) -> web.StreamResponse:
        """What Hermes answers since it has no time-weighted averages any more."""
        return _text(400, "The TWAP endpoint has been deprecated and is no longer available.")

    async def nothing_signed(self, request: web.Request) -> web.StreamResponse:
        """Publishers' stake caps: the hub knows none."""
        raise HermesError(404, UPDATE_DATA_NOT_FOUND)

    # The first API.

    async def price_feed_ids(self, request: web.Request) -> web.StreamResponse:
        """Every id there is."""
        return json_answer(sorted(self._quotes.served().values()))

    async def latest_price_feeds(self, request: web.Request) -> web.StreamResponse:
        """The prices that hold now."""
        query = Query(request.query_string)
        query.ignore_invalid = False  # a parameter of the second API
        quotes, _ = await self._now(query, query.required_ids(), signed=query.binary)
        return json_answer([self._price_feed(quote, query) for quote in quotes])

    async def get_price_feed(self, request: web.Request) -> web.StreamResponse:
        """The first price that was published at or after a time."""
        query = Query(request.query_string)
        query.ignore_invalid = False
        quotes, _ = await self._then(query, [query.required_id()], query.required_time_s(), signed=query.binary)
        return json_answer(self._price_feed(quotes[0], query))

    async def latest_vaas(self, request: web.Request) -> web.StreamResponse:
        """Signed updates of the prices that hold now. Where one has none the call fails: half of them is no answer."""
        query = Query(request.query_string)
        query.ignore_invalid = False
        quotes, _ = await self._now(query, query.required_ids())
        signed = self._signed.all_of(quotes)
        if not signed:
            raise HermesError(404, UPDATE_DATA_NOT_FOUND)
        return json_answer([b64encode(one).decode() for one in signed])

    async def get_vaa(self, request: web.Request) -> web.StreamResponse:
        """The signed update of the first price that was published at or after a time, while the hub still has it."""
        query = Query(request.query_string)
        query.ignore_invalid = False
        time_s = query.required_time_s()
        (quote,), _ = await self._then(query, [query.required_id()], time_s)
        signed = self._signed.of(quote)
        if signed is None:
            raise HermesError(404, UPDATE_DATA_NOT_FOUND)
        return json_answer({"vaa": b64encode(signed).decode(), "publishTime": quote.publish_s})

    async def get_vaa_ccip(self, request: web.Request) -> web.StreamResponse:
        """The same for contracts that look data up themselves, which ask elsewhere when the status is 502."""
        query = Query(request.query_string)
        price_id, time_s = ccip_input(query.word("data"))
        found = self._known(query, [price_id])
        quotes, _ = await self._quotes.after(found, time_s)
        await self._signed.learn(lambda: quotes)
        signed = self._signed.all_of(quotes)
        if not signed:
            raise HermesError(502, "CCIP update data not found")
        return json_answer({"data": f"0x{signed[0].hex()}"})

    # What they share.

    def _known(self, query: Query, price_ids: Sequence[str]) -> dict[str, str]:
        """The feeds of these ids. Raises HermesError for those that no feed has, unless they are to be ignored."""
        found, unknown = self._quotes.sort(price_ids)
        if unknown and not query.ignore_invalid:
            raise ids_not_found(unknown)
        return found

    def _price_feed(self, quote: Quote, query: Query) -> dict[str, object]:
        return price_feed(quote, self._signed.of(quote), verbose=query.verbose, with_binary=query.binary)

    async def _now(
        self, query: Query, price_ids: Sequence[str], *, signed: bool = True
    ) -> tuple[list[Quote], list[Absent]]:
        """``signed``: with what was signed of them, as far as it is to be had."""
        found = self._known(query, price_ids)
        await self._quotes.open(found)
        if signed:
            await self._signed.learn(lambda: self._quotes.now(found)[0])
        quotes, absent = self._quotes.now(found)  # as they stand when they are told
        if absent and not query.ignore_invalid:
            raise _NoPrice(ids_not_found(one.price_id for one in absent), absent)
        return quotes, absent

    async def _then(
        self, query: Query, price_ids: Sequence[str], time_s: int, *, signed: bool = True
    ) -> tuple[list[Quote], list[Absent]]:
        found = self._known(query, price_ids)
        quotes, absent = await self._quotes.after(found, time_s)
        if signed:
            await self._signed.learn(lambda: quotes)
        if absent and not (query.ignore_invalid and quotes):
            raise _NoPrice(HermesError(404, UPDATE_DATA_NOT_FOUND), absent)
        return quotes, absent

    def _update(self, query: Query, quotes: Sequence[Quote], absent: Sequence[Absent]) -> web.StreamResponse:
        reasons = {one.price_id: one.reason for one in absent}
        simulated = self._quotes.simulated
        signed = self._signed.all_of(quotes)
        return json_answer(
            price_update(
                quotes, query.encoding, signed=signed, parsed=query.parsed, absent=reasons, simulated=simulated
            )
        )


class _NoPrice(HermesError):
    """No price for feeds that exist: Hermes' text, and why, for those who look at headers."""

    def __init__(self, told: HermesError, absent: Sequence[Absent]) -> None:
        super().__init__(told.status, str(told))
        self.why = ", ".join(f"{one.feed}={one.reason}" for one in absent)


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers={"Cache-Control": "no-store", **(headers or {})})


def _told(answer: _Answer) -> _Answer:
    """Errors as Hermes tells them: a status and a line of text."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return await answer(request)
        except HermesError as error:
            headers = {ABSENT_HEADER: error.why} if isinstance(error, _NoPrice) else None
            return _text(error.status, str(error), headers)

    return handler


def routes(context: Context, limits: Limits | None = None) -> list[web.RouteDef]:
    """The door. ``/`` itself is not Hermes' here; ``/hermes/`` lists the routes.

    Raises:
        ChartsError: ``pyth_ids`` of the settings can't be used.
    """
    door = Hermes(context, limits or Limits())
    found = [route for prefix in PREFIXES for route in door.routes(prefix)]
    return [*found, web.get("/hermes", door.index), web.get("/hermes/", door.index)]
