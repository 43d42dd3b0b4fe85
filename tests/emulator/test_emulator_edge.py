"""Edge's REST API as the emulator plays it: read by the link of the product, over real sockets."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from feeds.edge.messages import EVM, SVM, check, decode
from feeds.edge.rest import EdgeFeed, EdgeLink, EdgeProver
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.emulator import EmulatorSettings
from feeds.emulator.faults import Fault, Kind
from feeds.emulator.oracles import EDGE
from feeds.verdict import Mode
from oracle_hub.core.source import Condition, Fetch, PriceUpdate, Status, Unchanged
from oracle_hub.ingest.http import fetch_frame
from tests.emulator.conftest import START_US, MakeStage, Stage

FEEDS = {"SOL/USD": EdgeFeed("SOLUSD"), "BTC/USD": EdgeFeed("BTCUSD")}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def base_url(stage: Stage) -> str:
    assert stage.emulator.urls is not None
    return stage.emulator.urls.edge[0].url


def link_to(stage: Stage, key: str | None = None) -> EdgeLink:
    return EdgeLink("edge:1", base_url(stage), FEEDS, prover=EdgeProver(EdgeSigner().sets), key=key)


async def turn(http: aiohttp.ClientSession, link: EdgeLink, now_us: int = START_US) -> list[Any]:
    """Let the link ask once, and give it the answer."""
    asked = link.connect(now_us) if link.next_deadline() is None else link.on_timer(now_us)
    (fetch,) = [effect for effect in asked if isinstance(effect, Fetch)]
    frame, _ = await fetch_frame(http, fetch, 2**20, lambda: now_us)
    return link.receive(frame, now_us)


async def test_the_link_reads_the_legs_price_and_proves_it(stage: Stage, http: aiohttp.ClientSession) -> None:
    link = link_to(stage)
    updates = await turn(http, link)
    for update in updates:
        held = stage.world.held(update.feed, EDGE)
        assert held is not None and isinstance(update, PriceUpdate) and update.verified
        assert (update.mantissa, update.publish_us) == (held.mantissa, held.publish_s * 1_000_000)
    assert {update.feed for update in updates} == set(FEEDS)
    again = await turn(http, link, START_US + 1_000_000)
    assert all(isinstance(item, Unchanged) for item in again) and len(again) == 2


async def test_every_form_is_signed(stage: Stage, http: aiohttp.ClientSession) -> None:
    for path, kind, count in (
        ("/prices?feedIds=SOLUSD,BTCUSD", SVM, 2),
        ("/prices/batch?feedIds=SOLUSD,ethusd", SVM, 1),
        ("/prices/SOLUSD/latest", SVM, 1),
        ("/prices/evm/crypto?feedIds=SOLUSD,USDCUSD", EVM, 2),
    ):
        async with http.get(base_url(stage) + path) as response:
            messages = decode("edge.evm" if kind == EVM else "edge.svm", await response.read())
        assert len(messages) == count
        assert check(messages, EdgeSigner().sets, mode=Mode.STRICT).verified
    async with http.get(base_url(stage) + "/prices/DOGEUSD/latest") as response:
        assert response.status == 404
    async with http.get(base_url(stage) + "/prices/batch") as response:
        assert response.status == 400


async def test_the_key_is_wanted_as_it_is(make_stage: MakeStage, http: aiohttp.ClientSession) -> None:
    stage = await make_stage(EmulatorSettings(edge_key="k-1"))
    assert len(await turn(http, link_to(stage, "k-1"))) == 2
    for wrong in (None, "Bearer k-1"):
        (told,) = await turn(http, link_to(stage, wrong))
        assert isinstance(told, Status) and told.condition is Condition.NOT_ENTITLED and "k-1" not in told.text
    urls = await (await http.get(stage.emulator.urls.control)).json() if stage.emulator.urls else {}
    assert urls["urls"]["edge"][0]["key"] == "set"


@pytest.mark.parametrize(
    ("fault", "condition", "waits_us"),
    [
        (Fault(kind="rate_limit", endpoint="edge", duration_s=5, retry_after_s=7), Condition.RATE_LIMITED, 7_000_000),
        (Fault(kind="unauthorized", endpoint="edge", duration_s=5), Condition.NOT_ENTITLED, 60_000_000),
    ],
)
async def test_faults_of_the_host(
    stage: Stage, http: aiohttp.ClientSession, fault: Fault, condition: Condition, waits_us: int
) -> None:
    link = link_to(stage)
    stage.emulator.inject(fault)
    (told,) = await turn(http, link)
    assert told.condition is condition and link.next_deadline() == START_US + waits_us
    stage.emulator.clear()
    told, *prices = await turn(http, link, START_US + waits_us)
    assert told.condition is Condition.OK and len(prices) == 2


@pytest.mark.parametrize("kind", ["unauthorized", "not_entitled", "rate_limit", "malformed"])
async def test_a_fault_of_another_source_leaves_edge_alone(
    stage: Stage, http: aiohttp.ClientSession, kind: Kind
) -> None:
    stage.emulator.inject(Fault(kind=kind, source="hermes"))
    assert [price.feed for price in await turn(http, link_to(stage))] == ["SOL/USD", "BTC/USD"]


async def test_a_feed_that_the_key_does_not_cover_is_left_out(stage: Stage, http: aiohttp.ClientSession) -> None:
    stage.emulator.inject(Fault(kind="not_entitled", endpoint="edge", source=EDGE, feed="BTC/USD", duration_s=5))
    price, told = await turn(http, link_to(stage))
    assert price.feed == "SOL/USD" and (told.feed, told.condition) == ("BTC/USD", Condition.LOST)
