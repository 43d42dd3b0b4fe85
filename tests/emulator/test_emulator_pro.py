"""Pyth Pro as the emulator plays it, over sockets, and read by the product's own link."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import aiohttp
import orjson
import pytest
from msgspec import convert

from feeds.addresses import ASSETS
from feeds.emulator.faults import Fault
from feeds.emulator.oracles import LAZER
from feeds.emulator.pro_signing import simulated_signer
from feeds.pyth.lazer import Lazer, check
from feeds.pyth.pro import ProFeed, ProLink, ProProver
from oracle_hub.core.source import Condition, Frame, Malformed, Open, PriceUpdate, Send, Status, Unchanged
from tests.emulator.conftest import Stage

KEY = "simulated-token"
FEEDS = {feed: ProFeed(ASSETS[feed].pro_id) for feed in ("SOL/USD", "BTC/USD")}
ALL = ["price", "bestBidPrice", "bestAskPrice", "publisherCount", "exponent", "confidence", "fundingRate"]
ALL += ["fundingTimestamp", "fundingRateInterval", "marketSession", "emaPrice", "emaConfidence", "feedUpdateTimestamp"]


class Dialler:
    """Opens sockets, and closes them at the end."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def dial(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        socket: aiohttp.ClientWebSocketResponse = await self.session.ws_connect(url, **options)
        self.sockets.append(socket)
        return socket


@pytest.fixture
async def http() -> AsyncIterator[Dialler]:
    async with aiohttp.ClientSession() as session:
        dialler = Dialler(session)
        yield dialler
        for socket in dialler.sockets:
            await socket.close()


def url(stage: Stage, number: int = 0) -> str:
    assert stage.emulator.urls is not None
    return stage.emulator.urls.pro[number].ws


class Client:
    """One socket to a host, and the link that reads it."""

    def __init__(self, stage: Stage, socket: aiohttp.ClientWebSocketResponse, link: ProLink | None = None) -> None:
        self._stage = stage
        self._socket = socket
        self._link = link

    async def receive(self) -> Any:
        message = await asyncio.wait_for(self._socket.receive(), 5)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return message.data

    async def told(self) -> list[Any]:
        """What the link makes of the next message."""
        assert self._link is not None
        return [*self._link.receive(Frame("websocket", (await self.receive()).encode()), self._stage.now_us)]

    async def ask(self, **request: object) -> dict[str, Any]:
        await self._socket.send_str(orjson.dumps(request).decode())
        answer: dict[str, Any] = orjson.loads(await self.receive())
        return answer


async def linked(stage: Stage, http: Dialler, number: int = 0, **options: Any) -> tuple[Client, list[Any]]:
    """A client with a link of the product that has subscribed, and what it made of the answer."""
    feeds = options.pop("feeds", FEEDS)
    options.setdefault("prover", ProProver(simulated_signer().sets))
    link = ProLink(f"pro:{number + 1}", url(stage, number), feeds, key=KEY, **options)
    opening, *sends = link.connect(stage.now_us)
    assert isinstance(opening, Open)
    socket = await http.dial(opening.url, headers=opening.headers)
    for send in sends:
        assert isinstance(send, Send)
        await socket.send_str(send.text)
    client = Client(stage, socket, link)
    return client, await client.told()


async def bare(stage: Stage, http: Dialler) -> Client:
    return Client(stage, await http.dial(f"{url(stage)}/v1/stream?ACCESS_TOKEN={KEY}"))


def asked(number: int = 1, **changes: object) -> dict[str, object]:
    request: dict[str, object] = {"type": "subscribe", "subscriptionId": number, "priceFeedIds": [6], "properties": ALL}
    return request | {"formats": ["solana"], "channel": "fixed_rate@200ms"} | changes


@pytest.mark.parametrize("envelope", ["solana", "leEcdsa", "evm"])
async def test_the_link_proves_what_every_host_tells_once(stage: Stage, http: Dialler, envelope: Any) -> None:
    prover = ProProver(simulated_signer().sets)
    clients = [(await linked(stage, http, number, prover=prover, envelope=envelope))[0] for number in range(3)]
    for _ in range(4):
        stage.advance(1)
        for client in clients:
            output = await client.told()
            assert [one.feed for one in output] == list(FEEDS)
            for one in output:
                held = stage.world.held(one.feed, LAZER)
                assert held is not None and isinstance(one, PriceUpdate) and one.verified
                assert (one.mantissa, one.conf, one.publish_us) == (held.mantissa, held.conf, held.publish_us)
    assert prover.checked == 4


async def test_a_fixed_channel_keeps_its_grid_and_carries_prices_forward(stage: Stage, http: Dialler) -> None:
    client = await bare(stage, http)
    assert await client.ask(**asked()) == {"type": "subscribed", "subscriptionId": 1}
    times, published = [], []
    for _ in range(20):
        stage.advance(0.1)
    for _ in range(10):
        update = orjson.loads(await client.receive())
        message = Lazer.decode(b64decode(update["solana"]["data"]))
        assert check(message, simulated_signer().sets).verified and message.channel == 3
        (feed,) = message.feeds
        times.append(message.timestamp_us)
        published.append(feed.feed_update_timestamp)
        (beside,) = update["parsed"]["priceFeeds"]
        assert (beside["price"], beside["confidence"]) == (str(feed.price), feed.confidence)
        assert (beside["feedUpdateTimestamp"], beside["marketSession"]) == (feed.feed_update_timestamp, "regular")
        assert feed.best_bid_price is not None and feed.best_ask_price is not None and feed.price is not None
        assert feed.best_bid_price < feed.price < feed.best_ask_price and feed.funding_rate is None
    assert [time % 200_000 for time in times] == [0] * 10
    assert {later - time for time, later in pairwise(times)} == {200_000}
    assert 1 < len(set(published)) < 5  # the leg has a new price about once a second


async def test_real_time_tells_news_alone(stage: Stage, http: Dialler) -> None:
    client, _ = await linked(stage, http, channel="real_time", feeds={"SOL/USD": ProFeed(6)})
    for _ in range(30):
        stage.advance(0.1)
    for _ in range(2):
        (one,) = await client.told()
        assert isinstance(one, PriceUpdate)


async def test_feeds_that_are_not_served_are_named_to_the_link(stage: Stage, http: Dialler) -> None:
    stage.emulator.inject(Fault(kind="not_entitled", feed="BTC/USD"))
    feeds = FEEDS | {"USDC/USD": ProFeed(7), "X/USD": ProFeed(99)}
    client, output = await linked(stage, http, feeds=feeds, channel="real_time")
    assert {one.feed: one.condition for one in output if isinstance(one, Status)} == {
        "BTC/USD": Condition.NOT_ENTITLED,
        "USDC/USD": Condition.LOST,
        "X/USD": Condition.LOST,
    }
    stage.advance(2)
    assert [one.feed for one in await client.told()] == ["SOL/USD"]
    stage.emulator.inject(Fault(kind="not_entitled", feed="SOL/USD"))
    _, output = await linked(stage, http)
    assert [one.condition for one in output] == [Condition.NOT_ENTITLED] * 2


async def test_requests_and_their_answers(stage: Stage, http: Dialler) -> None:
    client = await bare(stage, http)
    assert (await client.ask(**asked(priceFeedIds=None, symbols=["Crypto.SOL/USD"])))["type"] == "subscribed"
    refusals = {
        "duplicate subscription id": asked(),
        "either priceFeedIds or symbols must be given": asked(2, symbols=["Crypto.SOL/USD"]),
        "invalid feeds: {'unknownIds': [99]}": asked(2, priceFeedIds=[6, 99]),
        "unknown channel 'fixed_rate@1ms'": asked(2, channel="fixed_rate@1ms"),
        "unknown property or format 'color'": asked(2, properties=["color"]),
        "only JSON with base64 or hex is served here": asked(2, deliveryFormat="binary"),
        "no such subscription": {"type": "unsubscribe", "subscriptionId": 2},
    }
    for words, request in refusals.items():
        answer = await client.ask(**request)
        assert (answer["type"], answer["error"]) == ("subscriptionError", words)
    for senseless in ({"type": "dance", "subscriptionId": 1}, {"type": "subscribe"}):
        assert (await client.ask(**senseless))["type"] == "error"
    answer = await client.ask(type="unsubscribe", subscriptionId=1)
    assert answer == {"type": "unsubscribed", "subscriptionId": 1}
    stage.advance(5)
    assert (await client.ask(**asked(3)))["type"] == "subscribed"  # and nothing was sent before it


async def test_the_token_is_wanted(stage: Stage, http: Dialler) -> None:
    path = f"{url(stage)}/v1/stream"
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": KEY}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.dial(path, headers=headers)
        assert refused.value.status == 401
    socket = await http.dial(path, protocols=("pyth-lazer-auth", KEY))
    assert socket.protocol == "pyth-lazer-auth"
    for kind, status in (("unauthorized", 401), ("rate_limit", 429)):
        number = stage.emulator.inject(convert({"kind": kind, "endpoint": "pro-1"}, Fault))
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.dial(path, headers={"Authorization": f"Bearer {KEY}"})
        assert refused.value.status == status
        stage.emulator.clear(number)


@pytest.mark.parametrize(
    ("mode", "why"), [("signers", "unknown_signer"), ("price", "bad_signature"), ("unsigned", "unsigned")]
)
async def test_forged_payloads_are_refused_by_their_reason(stage: Stage, http: Dialler, mode: str, why: str) -> None:
    client, _ = await linked(stage, http)
    number = stage.emulator.inject(Fault(kind="forged", mode=mode, source="lazer", endpoint="pro-1"))
    stage.advance(1)
    output = [*await client.told(), *await client.told()]  # the first was sent when the fault began
    refused = [one for one in output if isinstance(one, Malformed)]
    assert refused and all(one.reason.startswith(f"not verified: {why}: ") for one in refused)
    assert not any(isinstance(one, PriceUpdate) for one in output)
    stage.emulator.clear(number)
    stage.advance(1)
    assert all(not isinstance(one, Malformed) for one in await client.told())


async def test_old_payloads_told_again_are_named_and_no_news(stage: Stage, http: Dialler) -> None:
    client, _ = await linked(stage, http, feeds={"SOL/USD": ProFeed(6)})
    stage.emulator.inject(Fault(kind="forged", mode="old", source="lazer", endpoint="pro-1"))
    (first,) = await client.told()
    assert isinstance(first, PriceUpdate)
    stage.advance(9)
    (again,) = await client.told()
    assert isinstance(again, Unchanged)
    stage.advance(9)
    named, again = await client.told()
    assert isinstance(named, Status) and named.text.endswith("s behind our clock") and isinstance(again, Unchanged)


async def test_silent_feeds_and_broken_frames(stage: Stage, http: Dialler) -> None:
    client, _ = await linked(stage, http)
    stage.advance(1)
    await client.told()
    stage.emulator.inject(Fault(kind="silent", feed="BTC/USD", endpoint="pro-1"))
    stage.advance(1)
    assert {one.feed for one in await client.told()} == {"SOL/USD"}
    stage.emulator.inject(Fault(kind="malformed", source="lazer", endpoint="pro-1"))
    stage.advance(1)
    (broken,) = await client.told()
    assert isinstance(broken, Malformed) and broken.reason.startswith("no message of Pyth Pro")
    stage.advance(1)
    assert isinstance((await client.told())[0], PriceUpdate | Unchanged)


async def test_the_control_page_names_the_hosts_and_no_token(stage: Stage, http: Dialler) -> None:
    await (await bare(stage, http)).ask(**asked())
    assert stage.emulator.urls is not None
    async with http.session.get(stage.emulator.urls.control) as response:
        text = await response.text()
    page = orjson.loads(text)
    assert [one["name"] for one in page["urls"]["pro"]] == ["pro-1", "pro-2", "pro-3"]
    assert (page["streams"]["pro-1"], page["streams"]["pro-2"]) == (1, 0) and KEY not in text
