"""Edge's REST API, in the shapes of its reference, signed with a test key (:mod:`feeds.emulator.edge_signing`).

Prices are those of Edge's own leg. The key is wanted as it is in ``Authorization``, without a scheme. Faults are those
of an HTTP host: slow, rate_limit, unauthorized, not_entitled (the feed is left out), malformed, disconnect.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import orjson
from aiohttp import web

from feeds.edge.messages import EdgePrice
from feeds.emulator.accounts import EXPO
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.oracles import EDGE
from feeds.emulator.server import Server
from feeds.emulator.world import Change, World

_SPREAD_PPM = 20


class EdgeServer(Server):
    """A host under a name, over a world that others share. With ``key`` every route wants it."""

    ORACLE: ClassVar[str | None] = EDGE

    def __init__(self, name: str, world: World, now_us: Callable[[], int], *, key: str | None = None) -> None:
        super().__init__(name, world, now_us)
        self._key = key
        self._signer = EdgeSigner()

    def routes(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/prices", self._each)
        app.router.add_get("/prices/batch", self._batch)
        app.router.add_get("/prices/evm/crypto", self._evm)
        app.router.add_get("/prices/{feed_id}/latest", self._latest)

    def tell(self, changes: Sequence[Change]) -> None:
        """Nothing: this host only answers."""

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _admit(self, request: web.Request) -> None:
        await self._hold_up('{"error": "rate limit exceeded"}')
        wrong = self._key is not None and request.headers.get("Authorization") != self._key
        if wrong or self._faults("unauthorized"):
            raise web.HTTPUnauthorized(text='{"error": "unauthorized"}')

    def _price(self, feed_id: str) -> EdgePrice | None:
        feed = self._world.catalogue.of_edge_id.get(feed_id.upper())
        if feed is None or any(fault.hits(EDGE, feed) for fault in self._faults("not_entitled")):
            return None
        held = self._world.held(feed, EDGE)
        if held is None:
            return None
        half = max(1, held.mantissa * _SPREAD_PPM // 2_000_000)
        bid = max(1, held.mantissa - half)
        return EdgePrice(feed_id.upper(), held.mantissa, EXPO, held.publish_s, held.round_id, bid, held.mantissa + half)

    async def _asked(self, request: web.Request) -> list[EdgePrice]:
        await self._admit(request)
        names = dict.fromkeys(name for name in request.query.get("feedIds", "").split(",") if name)
        if not names:
            raise web.HTTPBadRequest(text='{"error": "feedIds is required"}')
        return [price for name in names if (price := self._price(name)) is not None]

    async def _batch(self, request: web.Request) -> web.Response:
        return self._answer(self._signer.batch(await self._asked(request)))

    async def _each(self, request: web.Request) -> web.Response:
        return self._answer(self._signer.each(await self._asked(request)))

    async def _evm(self, request: web.Request) -> web.Response:
        prices = [orjson.loads(self._signer.evm(price)) for price in await self._asked(request)]
        return self._answer(orjson.dumps({"prices": prices}))

    async def _latest(self, request: web.Request) -> web.Response:
        await self._admit(request)
        price = self._price(request.match_info["feed_id"])
        if price is None:
            raise web.HTTPNotFound(text='{"error": "feed not found"}')
        return self._answer(self._signer.single(price))

    def _answer(self, body: bytes) -> web.Response:
        return web.Response(body=self._broken(body), content_type="application/json")
