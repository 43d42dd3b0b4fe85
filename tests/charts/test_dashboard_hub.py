"""The hub through the charts process: its stream frame by frame, and its health."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from oracle_hub.charts.app import Charts
from oracle_hub.charts.recorder import hub_url
from oracle_hub.client import connect as connect_client
from tests.charts.charts_stage import charts_beside
from tests.client.client_stage import HubStage, turns_until
from tests.patience import PATIENCE_S

STREAM = [Subprotocol("oraclehub.v1")]


@pytest.fixture
async def hub() -> AsyncIterator[HubStage]:
    stage = await HubStage().start()
    yield stage
    await stage.server.stop("the test is over")


@pytest.fixture
async def charts(hub: HubStage, tmp_path: Path) -> AsyncIterator[Charts]:
    async with charts_beside(hub, tmp_path / "charts.sqlite") as running:
        yield running


def stream_of(charts: Charts) -> str:
    return charts.url.replace("http", "ws", 1) + "/v1/stream"


async def close_code(url: str) -> tuple[int, str]:
    """How a connection to the stream is closed."""
    async with asyncio.timeout(PATIENCE_S), connect(url, subprotocols=STREAM, proxy=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def test_a_client_follows_the_stream_through_it(hub: HubStage, charts: Charts) -> None:
    async with asyncio.timeout(PATIENCE_S), connect_client(stream_of(charts), ["*"], detail="full") as prices:
        assert prices.hub is not None and prices.hub.instance == hub.service.instance
        hub.tick("SOL/USD", 15_000_000_123)
        await turns_until(lambda: prices.get("SOL/USD").mantissa == 15_000_000_123)
        price = prices.get("SOL/USD")
        assert price.inputs is not None and price.inputs["doves"].price == "15000000123"
        assert charts.context.listening == 1
    await turns_until(lambda: charts.context.listening == 0)


async def test_frames_are_the_hubs_own(hub: HubStage, charts: Charts) -> None:
    async with asyncio.timeout(PATIENCE_S), connect(stream_of(charts), subprotocols=STREAM, proxy=None) as socket:
        assert socket.subprotocol == "oraclehub.v1"
        hello = orjson.loads(await socket.recv())
        assert (hello["type"], hello["instance"]) == ("hello", hub.service.instance)
        await socket.send('{"type": "subscribe", "id": 7, "feeds": ["NO/SUCH"]}')
        answer = orjson.loads(await socket.recv())
        assert (answer["id"], answer["sub"], answer["rejected"][0]["feed"]) == (7, None, "NO/SUCH")
        await socket.send(b"\x00")  # what the hub refuses, the hub refuses: nothing is lost by it
        assert orjson.loads(await socket.recv())["code"] == "binary_message"
        await socket.send('{"type": "ping", "id": 8}')
        assert orjson.loads(await socket.recv())["id"] == 8


async def test_without_a_hub_a_page_is_told_to_come_back(tmp_path: Path) -> None:
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts:
        await hub.server.stop("gone")
        assert await close_code(stream_of(charts)) == (4000, "the hub cannot be reached")
        async with aiohttp.ClientSession(charts.url) as http:
            async with http.get("/v1/hub") as answer:
                report = await answer.json()
            assert (answer.status, report["reachable"], report["readiness"]) == (200, False, None)
            assert report["error"] == "the hub cannot be reached"
            async with http.get("/v1/alerts") as answer:
                assert (answer.status, await answer.json()) == (200, {"alerts": None})


async def test_its_end_and_the_hubs_end_are_told_with_a_code(tmp_path: Path) -> None:
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts:
        url = stream_of(charts)
        first = asyncio.create_task(close_code(url))
        await turns_until(lambda: charts.context.listening == 1)
        await hub.server.stop("restart")
        assert (await first)[0] == 4000
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts:
        second = asyncio.create_task(close_code(stream_of(charts)))
        await turns_until(lambda: charts.context.listening == 1)
    assert await second == (4000, "shutdown")
    await hub.server.stop("the test is over")


async def test_other_origins_and_plain_requests_are_refused(charts: Charts) -> None:
    async with aiohttp.ClientSession(charts.url) as http:
        async with http.get("/v1/stream") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (426, "upgrade_required")
        async with http.get("/v1/stream", headers={"Origin": "https://elsewhere.example"}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "origin_refused")


@pytest.mark.parametrize(
    ("stream", "readiness"),
    [
        ("ws://127.0.0.1:8080/v1/stream", "http://127.0.0.1:8080/readyz"),
        ("wss://hub.example/a/v1/stream", "https://hub.example/a/readyz"),
    ],
)
def test_where_the_hub_says_how_it_is(stream: str, readiness: str) -> None:
    assert hub_url(stream, "/readyz") == readiness
