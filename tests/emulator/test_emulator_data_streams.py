"""Data Streams as the emulator plays it: signed requests, and reports that the product's link proves, over sockets."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from feeds.addresses import ASSETS
from feeds.chainlink.data_streams import ReportProver, StreamsFeed, StreamsLink, signed_headers
from feeds.emulator.emulator import StreamsUrl
from feeds.emulator.faults import Fault
from feeds.emulator.oracles import CHAINLINK_LEG
from feeds.emulator.report_signing import DonSigner
from oracle_hub.core.source import Condition, Fetch, Frame, Open, PriceUpdate, Status, Unchanged
from oracle_hub.ingest.http import fetch_frame
from tests.emulator.conftest import START_US, Stage
from tests.patience import PATIENCE_S

KEY, SECRET = "simulated-key", "simulated-secret"
FEEDS = {feed: StreamsFeed(ASSETS[feed].data_streams_id) for feed in ("SOL/USD", "BTC/USD")}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def urls(stage: Stage) -> StreamsUrl:
    assert stage.emulator.urls is not None
    return stage.emulator.urls.streams[0]


def link_to(stage: Stage, *, secret: str = SECRET, origin: str | None = None) -> StreamsLink:
    where, prover = urls(stage), ReportProver(DonSigner().sets)
    return StreamsLink("streams:1", where.ws, where.http, FEEDS, key=KEY, secret=secret, prover=prover, origin=origin)


async def looked_up(http: aiohttp.ClientSession, link: StreamsLink) -> list[Any]:
    """Connect, and give the link the answers to its look-ups."""
    out: list[Any] = []
    for effect in link.connect(START_US):
        if isinstance(effect, Fetch):
            frame, _ = await fetch_frame(http, effect, 2**20, lambda: START_US)
            out += link.receive(frame, START_US)
    return out


async def test_the_latest_reports_are_proved(stage: Stage, http: aiohttp.ClientSession) -> None:
    updates = await looked_up(http, link_to(stage, origin="002"))
    assert {update.feed for update in updates} == set(FEEDS)
    for update in updates:
        held = stage.world.held(update.feed, CHAINLINK_LEG)
        assert held is not None and isinstance(update, PriceUpdate) and update.verified
        assert (update.mantissa, update.publish_us) == (held.mantissa, held.publish_s * 1_000_000)


async def test_the_stream_tells_each_report_to_every_origin(stage: Stage, http: aiohttp.ClientSession) -> None:
    links = [link_to(stage, origin=origin) for origin in ("001", "002")]
    sockets = []
    for link in links:
        (opening, *_) = link.connect(START_US)
        assert isinstance(opening, Open)
        sockets.append(await http.ws_connect(opening.url, headers=opening.headers))
    await stage.emulator.streams[0].wait_for_sockets(2)
    stage.advance(3)
    for link, socket in zip(links, sockets, strict=True):
        message = await asyncio.wait_for(socket.receive(), PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.BINARY
        (update,) = link.receive(Frame("websocket", message.data), stage.now_us)
        assert isinstance(update, PriceUpdate) and update.verified
        (again,) = link.receive(Frame("websocket", message.data), stage.now_us)
        assert isinstance(again, Unchanged)
        await socket.close()


@pytest.mark.parametrize("wrong", ["secret", "late", "path"])
async def test_requests_must_be_signed_in_time(stage: Stage, http: aiohttp.ClientSession, wrong: str) -> None:
    url = f"{urls(stage).http}/api/v1/feeds"
    at_ms = START_US // 1_000

    async def status(asked: str, *, secret: str = SECRET, ms: int = at_ms) -> int:
        async with http.get(url, headers=signed_headers("GET", asked, b"", KEY, secret, ms)) as response:
            return response.status

    assert await status(url) == await status(url, ms=at_ms - 5_000) == 200
    assert (
        await {
            "secret": lambda: status(url, secret="x"),
            "late": lambda: status(url, ms=at_ms - 5_001),
            "path": lambda: status(url + "?a=1"),
        }[wrong]()
        == 401
    )


async def test_origins_and_feeds_are_named(stage: Stage, http: aiohttp.ClientSession) -> None:
    base = urls(stage).http
    async with http.head(
        base + "/", headers=signed_headers("HEAD", base + "/", b"", KEY, SECRET, START_US // 1_000)
    ) as r:
        assert r.headers["X-Cll-Available-Origins"] == "{001,002}"
    url = base + "/api/v1/feeds"
    async with http.get(url, headers=signed_headers("GET", url, b"", KEY, SECRET, START_US // 1_000)) as response:
        ids = {one["feedID"] for one in (await response.json())["feeds"]}
    assert ids == {f"0x{asset.data_streams_id}" for asset in ASSETS.values()}


async def test_refusals_reach_the_link(stage: Stage, http: aiohttp.ClientSession) -> None:
    told = await looked_up(http, link_to(stage, secret="x"))
    assert [item.condition for item in told if isinstance(item, Status)] == [Condition.NOT_ENTITLED]
    stage.emulator.inject(Fault(kind="rate_limit", endpoint="streams", duration_s=5, retry_after_s=7))
    told = await looked_up(http, link_to(stage))
    assert [item.condition for item in told if isinstance(item, Status)] == [Condition.RATE_LIMITED]
