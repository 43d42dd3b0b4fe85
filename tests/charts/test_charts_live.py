"""What doors are given: the newest of each feed, its lease judged at the moment of asking, and news without a queue."""

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from oracle_hub.charts.answers import ChartsCode, Refused
from oracle_hub.charts.app import Charts
from oracle_hub.charts.context import Context
from oracle_hub.client import NoPrice, Refusal
from oracle_hub.server.door import Door
from tests.charts.charts_stage import SETTINGS, charts_beside
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S


@pytest.fixture
async def hub() -> HubStage:
    return await HubStage().start()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "charts.sqlite"


async def test_prices_points_and_status_of_a_hub(hub: HubStage, database: Path) -> None:
    async with charts_beside(hub, database) as charts:
        live = charts.live
        assert {feed: info.expo for feed, info in live.feeds.items()} == {"SOL/USD": -8, "BTC/USD": -8}
        price, point = live.price("SOL/USD"), live.point("SOL/USD")
        assert (price.mantissa, price.state) == (15_000_000_000, "live")
        assert point is not None and (point.mantissa, point.rule, point.source) == (15_000_000_000, "R1", "doves")
        assert (point.instance, point.decided_us) == (hub.service.instance, price.decided_us)
        assert live.point("XRP/USD") is None
        with pytest.raises(NoPrice) as refused:
            live.price("XRP/USD")
        assert refused.value.reason is Refusal.UNKNOWN_FEED
        status = live.status
        assert (status.connected, status.simulated, status.instance) == (True, None, hub.service.instance)
        assert (status.epoch, status.seq) == (hub.service.epoch, hub.service.seq)
        assert status.heard_us == hub.service.clock_us
        await hub.server.stop("the test is over")
        await turns_until(lambda: not live.status.connected)
        with pytest.raises(NoPrice) as refused:
            live.price("SOL/USD")
        assert refused.value.reason is Refusal.DISCONNECTED
        assert live.point("SOL/USD") == point  # the record stays


async def test_a_slow_listener_gets_the_newest_of_each_feed_once(hub: HubStage, database: Path) -> None:
    async with charts_beside(hub, database) as charts, charts.live.listen(["SOL/USD"]) as listener:
        for step in range(1, 101):
            hub.tick("SOL/USD", 15_000_000_000 + step)
            hub.tick("BTC/USD", 6_000_000_000_000 + step)
        await turns_until(lambda: charts.live.position is not None and charts.live.position.seq == hub.service.seq)
        assert await listener.wait(10)
        (update,) = listener.take()
        assert update.price is not None and update.point is not None
        assert (update.feed, update.price.mantissa, update.point.mantissa) == (
            "SOL/USD",
            15_000_000_100,
            15_000_000_100,
        )
        assert listener.take() == []


async def test_listening_is_bounded_and_ends(hub: HubStage, database: Path) -> None:
    async with charts_beside(hub, database, max_listeners=1) as charts:
        listeners = [charts.live.listen(), charts.live.listen()]
        with pytest.raises(Refused) as refused:
            charts.live.listen()
        assert (refused.value.status, refused.value.code) == (503, ChartsCode.TOO_MANY_LISTENERS)
        listeners[0].close()
        charts.live.listen().close()
        charts.live.close()
        assert [update async for update in listeners[1]] == []
        assert charts.live.listeners == 0
    await hub.server.stop("the test is over")


def door(context: Context) -> list[web.RouteDef]:
    """A door as others write them: it reads on a thread, refuses, fails."""

    async def answer(request: web.Request) -> web.Response:
        what = request.query.get("what")
        if what == "refuse":
            raise Refused(429, ChartsCode.BUSY, "not now", retry_after_s=3)
        if what == "fail":
            raise ZeroDivisionError
        return web.json_response({"sum": await context.read(sum, (1, 2))})

    return [web.get("/door", answer)]


async def test_a_door_answers_and_errors_are_json(hub: HubStage, database: Path) -> None:
    async with charts_beside(hub, database, doors=[door]) as charts, aiohttp.ClientSession(charts.url) as http:

        async def get(path: str) -> tuple[int, object]:
            async with http.get(path) as response:
                return response.status, await response.json()

        assert await get("/livez") == (200, {"status": "ok"})
        assert await get("/door") == (200, {"sum": 3})
        assert await get("/door?what=refuse") == (429, {"error": {"code": "busy", "message": "not now"}})
        status, failed = await get("/door?what=fail")
        assert (status, failed["error"]["code"]) == (500, "internal")  # type: ignore[index]
        assert charts.context.failures == 1
        status, missing = await get("/nowhere")
        assert (status, missing["error"]["code"]) == (404, "not_found")  # type: ignore[index]
    await hub.server.stop("the test is over")


@pytest.mark.parametrize(("allowed", "status"), [((), 403), (("https://a.example",), 200), (("*",), 200)])
async def test_a_page_of_another_origin_reads_only_where_it_is_allowed(
    hub: HubStage, database: Path, allowed: tuple[str, ...], status: int
) -> None:
    page = {"Origin": "https://a.example"}
    async with (
        charts_beside(hub, database, allowed_origins=allowed) as charts,
        aiohttp.ClientSession(charts.url) as http,
    ):
        async with http.get("/livez", headers=page) as answer:
            assert answer.status == status
            assert answer.headers.get("Access-Control-Allow-Origin") == (page["Origin"] if status == 200 else None)
        async with http.options("/livez", headers={**page, "Access-Control-Request-Method": "GET"}) as answer:
            assert answer.status == (204 if status == 200 else 403)
        async with http.get("/livez", headers={"Origin": charts.url}) as answer:
            assert answer.status == 200  # our own pages
    await hub.server.stop("the test is over")


async def test_a_connection_that_never_asks_is_cut(hub: HubStage, database: Path) -> None:
    gate = Door(timeout_s=0.05, max_waiting=10)
    async with Charts(hub.url, database, SETTINGS, gate=gate) as charts:
        host, port = charts.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
        assert gate.cut_off == 1
        async with aiohttp.ClientSession(charts.url) as http, http.get("/livez") as answer:
            assert answer.status == 200
    await hub.server.stop("the test is over")
