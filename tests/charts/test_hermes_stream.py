"""Hermes' events and websocket byte by byte: what is told, when a price is over, limits, and what is refused."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from oracle_hub.charts import hermes
from oracle_hub.charts.app import Charts
from oracle_hub.charts.context import Context
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.hermes_stage import BTC, PREFIXES, SOL, UNKNOWN, get, shape, without_ours
from tests.client.client_stage import turns_until
from tests.patience import PATIENCE_S

STREAM = "/v2/updates/price/stream"


@asynccontextmanager
async def beside(
    stage: ChartsStage, limits: hermes.Limits | None = None, **settings: object
) -> AsyncIterator[tuple[Charts, aiohttp.ClientSession]]:
    """Charts with this door alone, and a client."""

    def door(context: Context) -> list[web.RouteDef]:
        return hermes.routes(context, limits)

    async with stage.charts(doors=[door], **settings) as charts, aiohttp.ClientSession(charts.url) as http:
        yield charts, http


async def event(answer: aiohttp.ClientResponse) -> str:
    """The next event or comment, without the empty line that ends it."""
    async with asyncio.timeout(PATIENCE_S):
        return (await answer.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")


async def prices(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """The prices of the next event, by id. Fails the test where it is a comment."""
    text = await event(answer)
    assert text.startswith("data:{") and "\n" not in text
    return {one["id"]: one["price"]["price"] for one in json.loads(text[5:])["parsed"]}


async def message(ws: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        found: dict[str, Any] = await ws.receive_json()
    return found


async def subscribe(ws: aiohttp.ClientWebSocketResponse, *ids: str, **options: object) -> dict[str, Any]:
    await ws.send_json({"type": "subscribe", "ids": ids, **options})
    return await message(ws)


@pytest.mark.parametrize("seed", range(4))
async def test_every_door_tells_the_last_decision_or_nothing(stage: ChartsStage, seed: int) -> None:
    """Whatever happens: a price is told while its decision holds, by all of them alike, and never after."""
    chance = random.Random(seed)
    sources = ((), ("chainlink", "pyth"), ("doves",), ("pyth",))
    async with beside(stage) as (charts, http), http.ws_connect("/ws") as ws:
        told: dict[str, str] = {}
        priced: set[int] = set()
        await subscribe(ws, SOL, BTC, oracle_hub=True)
        for _ in range(40):
            if chance.random() < 0.3:
                stage.wait(chance.randrange(1, 12) * SECOND_US)
            else:
                feed, mantissa = chance.choice((("SOL/USD", 15_000_000_000), ("BTC/USD", 6_000_000_000_000)))
                mantissa += mantissa * chance.choice((0, 1, 2, 100)) // 10_000
                stage.tick(feed, mantissa, *chance.choice(sources), after_us=chance.randrange(1, 4 * SECOND_US))
            await stage.heard(charts)
            decided = stage.hub.service.decisions
            holds = {price_id: decided[feed] for feed, price_id in (("SOL/USD", SOL), ("BTC/USD", BTC))}
            wanted = {one: str(held.mantissa) for one, held in holds.items() if held.mantissa is not None}
            priced.add(len(wanted))
            query = f"ids[]={SOL}&ids[]={BTC}"
            status, body = await get(http, f"/v2/updates/price/latest?{query}&ignore_invalid_price_ids=true")
            assert {one["id"]: one["price"]["price"] for one in body["parsed"]} == wanted
            assert set(body["oracle_hub"]["absent"]) == {SOL, BTC} - set(wanted)
            strict, _ = await get(http, f"/v2/updates/price/latest?{query}")
            assert (status, strict) == (200, 200 if len(wanted) == 2 else 404)
            while told != wanted:
                news = await message(ws)
                if news["type"] == "price_absent":
                    told.pop(news["id"], None)  # again where the reason is another one
                else:
                    told[news["price_feed"]["id"]] = news["price_feed"]["price"]["price"]
        assert priced == {0, 1, 2}  # all of it happened


# Events.


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_events_are_as_real_ones(stage: ChartsStage, prefix: str, fixtures_dir: Path) -> None:
    samples = json.loads((fixtures_dir / "hermes_rest_samples.json").read_bytes())["v2_stream_sse_raw_lines"]
    async with beside(stage) as (_, http), http.get(f"{prefix}{STREAM}?ids[]={SOL}") as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await prices(answer) == {SOL: "15000000000"}  # what holds now
        stage.tick("BTC/USD", 6_000_000_100_000)
        stage.tick("SOL/USD", 15_000_100_000)
        text = await event(answer)
        real = samples["parsed"][0]
        real["binary"]["data"] = []
        assert text[:6] == samples["events"][0][:6] == "data:{"
        assert shape(without_ours(json.loads(text[5:]))) == shape(real)


async def test_parameters_of_events(stage: ChartsStage) -> None:
    query = (
        f"?ids[]={SOL}&ids[]={UNKNOWN}&parsed=false&encoding=base64&allow_unordered=true&ignore_invalid_price_ids=true"
    )
    async with beside(stage) as (_, http), http.get(f"{STREAM}{query}") as answer:
        told = json.loads((await event(answer))[5:])
        assert without_ours(told) == {"binary": {"encoding": "base64", "data": []}}


async def test_benchmarks_are_told_once_a_second(stage: ChartsStage) -> None:
    async with beside(stage) as (charts, http), http.get(f"{STREAM}?ids[]={SOL}&benchmarks_only=true") as answer:
        for second in range(1, 4):
            for step in range(3):
                after_us = 1_000 if step else SECOND_US
                stage.tick("SOL/USD", 15_000_000_000 + 10 * second + step, after_us=after_us)
                await stage.heard(charts)
            (entry,) = json.loads((await event(answer))[5:])["parsed"]
            assert int(entry["price"]["price"]) in range(15_000_000_000 + 10 * second, 15_000_000_003 + 10 * second)
            published_s = entry["price"]["publish_time"]
            assert entry["metadata"]["prev_publish_time"] == published_s - 1


async def test_a_price_that_is_over_is_told_in_a_comment(stage: ChartsStage) -> None:
    async with beside(stage) as (charts, http), http.get(f"{STREAM}?ids[]={SOL}") as answer:
        assert await prices(answer) == {SOL: "15000000000"}
        stage.wait(11 * SECOND_US)
        assert await event(answer) == ": SOL/USD none too_few_sources"
        stage.tick("SOL/USD", 15_000_700_000)
        assert await prices(answer) == {SOL: "15000700000"}
        await stage.hub.server.stop("gone")
        assert await event(answer) == ": SOL/USD none disconnected"
        status, _ = await get(http, f"/v2/updates/price/latest?ids[]={SOL}")
        assert (status, charts.context.failures) == (404, 0)


async def test_silence_is_filled_and_a_day_is_the_end(stage: ChartsStage) -> None:
    limits = hermes.Limits(keepalive_s=0.02, connection_s=1.0)
    async with beside(stage, limits) as (charts, http), http.get(f"{STREAM}?ids[]={SOL}") as answer:
        seen = (await answer.content.read()).decode().split("\n\n")
        assert seen[0].startswith("data:{")
        assert seen[1] == ":" and len(seen) > 4
        assert seen[-2:] == ["event: error\ndata: Connection timeout reached (24h)", ""]
        await turns_until(lambda: charts.context.listening == 0)


async def test_a_reader_that_takes_nothing_is_cut_off(stage: ChartsStage) -> None:
    async with beside(stage, hermes.Limits(write_s=0.05)) as (charts, _):
        host, port = charts.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(f"GET {STREAM}?ids[]={SOL}&ids[]={BTC} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await turns_until(lambda: charts.context.listening == 1)
        step = 0
        async with asyncio.timeout(PATIENCE_S):
            while charts.context.listening:
                step += 1
                stage.tick("SOL/USD", 15_000_000_000 + step)
                await asyncio.sleep(0)
        writer.close()
        assert charts.context.failures == 0 and reader is not None


async def test_a_websocket_that_takes_nothing_is_cut_off(stage: ChartsStage) -> None:
    async with beside(stage, hermes.Limits(write_s=0.05)) as (charts, _):
        host, port = charts.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        head = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        text = json.dumps({"type": "subscribe", "ids": [SOL], "verbose": True}).encode()
        frame = bytes([0x81, 0x80 | len(text)]) + bytes(4) + text  # masked with zeros
        writer.write(
            head.encode() + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame
        )
        await turns_until(lambda: charts.context.listening == 1)
        step = 0
        async with asyncio.timeout(PATIENCE_S):
            while charts.context.listening:
                step += 1
                stage.tick("SOL/USD", 15_000_000_000 + step)
                await asyncio.sleep(0)
        writer.close()
        assert charts.context.failures == 0


async def test_streams_are_bounded_and_refused_before_they_begin(stage: ChartsStage) -> None:
    async with beside(stage, max_listeners_per_ip=1) as (_, http), http.get(f"{STREAM}?ids[]={SOL}") as answer:
        assert await prices(answer)
        async with http.get(f"{STREAM}?ids[]={SOL}") as refused:
            assert refused.status == 429 and refused.headers["Retry-After"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
            await http.ws_connect("/ws")
        assert handshake.value.status == 429


# The websocket.


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_messages_are_as_real_ones(stage: ChartsStage, prefix: str, fixtures_dir: Path) -> None:
    samples = json.loads((fixtures_dir / "hermes_rest_samples.json").read_bytes())
    async with beside(stage) as (_, http), http.ws_connect(f"{prefix}/ws") as ws:
        assert await subscribe(ws, f"0X{SOL.upper()}", verbose=True, binary=True) == {
            "type": "response",
            "status": "success",
        }
        told = await message(ws)
        assert set(told) == {"type", "price_feed"} and told["type"] == "price_update"
        assert shape(without_ours(told["price_feed"])) == shape(samples["v1_price_feed_verbose_binary"]["body"])
        stage.tick("BTC/USD", 6_000_000_100_000)
        stage.tick("SOL/USD", 15_000_100_000)
        told = await message(ws)
        assert (told["price_feed"]["id"], told["price_feed"]["price"]["price"]) == (SOL, "15000100000")


async def test_options_are_those_of_the_last_subscription(stage: ChartsStage) -> None:
    async with beside(stage) as (_, http), http.ws_connect("/ws") as ws:
        await subscribe(ws, SOL, verbose=True)
        assert "metadata" in (await message(ws))["price_feed"]
        await ws.send_bytes(json.dumps({"type": "subscribe", "ids": [SOL]}).encode())  # a binary frame will do
        assert (await message(ws))["status"] == "success"
        assert set((await message(ws))["price_feed"]) == {"id", "price", "ema_price", "oracle_hub"}
        await ws.send_json({"type": "unsubscribe", "ids": [f"0x{SOL}"]})
        assert (await message(ws))["status"] == "success"
        stage.tick("SOL/USD", 15_000_100_000)
        await subscribe(ws, BTC)
        assert (await message(ws))["price_feed"]["id"] == BTC


async def test_one_bad_id_refuses_the_whole_subscription(stage: ChartsStage) -> None:
    async with beside(stage) as (_, http), http.ws_connect("/ws") as ws:
        error = f"Price feed(s) with id(s) [0x{UNKNOWN}, 0x{'cd' * 32}] not found"
        assert await subscribe(ws, SOL, UNKNOWN, "CD" * 32) == {"type": "response", "status": "error", "error": error}
        stage.tick("SOL/USD", 15_000_100_000)
        assert (await subscribe(ws, BTC, UNKNOWN, ignore_invalid_price_ids=True))["status"] == "success"
        assert (await message(ws))["price_feed"]["id"] == BTC  # nothing of SOL came before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"type": "ping"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "ids": ["abc"]}',
        '{"ids": []}',
        '{"type": "subscribe", "ids": [], "more": ' + "[" * 20_000 + "]" * 20_000 + "}",
    ],
)
async def test_what_cannot_be_read_is_answered_and_the_connection_goes_on(stage: ChartsStage, text: str) -> None:
    async with beside(stage) as (_, http), http.ws_connect("/ws") as ws:
        await ws.send_str(text)
        told = await message(ws)
        assert (told["type"], told["status"]) == ("response", "error") and told["error"]
        assert (await subscribe(ws, SOL))["status"] == "success"


async def test_who_asks_is_told_that_a_price_is_over(stage: ChartsStage) -> None:
    async with beside(stage) as (_, http), http.ws_connect("/ws") as ws, http.ws_connect("/hermes/ws") as plain:
        for socket, options in ((ws, {"oracle_hub": True}), (plain, {})):
            await subscribe(socket, SOL, **options)
            assert (await message(socket))["type"] == "price_update"
        stage.wait(11 * SECOND_US)
        assert await message(ws) == {
            "type": "price_absent",
            "id": SOL,
            "oracle_hub": {"price_id": SOL, "feed": "SOL/USD", "reason": "too_few_sources"},
        }
        stage.tick("SOL/USD", 15_000_100_000)
        for socket in (ws, plain):  # whose next message this is
            assert (await message(socket))["price_feed"]["price"]["price"] == "15000100000"


async def test_the_server_pings_at_once_and_goes_on(stage: ChartsStage) -> None:
    async with (
        beside(stage, hermes.Limits(ping_s=0.02)) as (_, http),
        http.ws_connect("/ws", autoping=False) as ws,
        asyncio.timeout(PATIENCE_S),
    ):
        for _ in range(3):
            frame = await ws.receive()
            assert frame.type is WSMsgType.PING
            await ws.pong(frame.data)


async def test_a_day_is_the_end_of_a_websocket(stage: ChartsStage) -> None:
    async with beside(stage, hermes.Limits(connection_s=0.1)) as (charts, http), http.ws_connect("/ws") as ws:
        error = "Connection timeout reached (24h)"
        assert await message(ws) == {"type": "response", "status": "error", "error": error}
        assert (await ws.receive()).type is WSMsgType.CLOSE
        await turns_until(lambda: charts.context.listening == 0)


async def test_clients_are_let_go_when_charts_end(stage: ChartsStage) -> None:
    async with beside(stage) as (charts, http), http.ws_connect("/ws") as ws:
        await subscribe(ws, SOL)
        await message(ws)
        async with http.get(f"{STREAM}?ids[]={SOL}") as answer:
            assert await prices(answer)
            charts.context.stop_listening()
            assert await answer.content.read() in (b"", b":\n\n")
            assert (await ws.receive()).type is WSMsgType.CLOSE
        assert charts.context.failures == 0


async def test_the_websocket_is_one(stage: ChartsStage) -> None:
    async with beside(stage) as (_, http), http.get("/hermes/ws") as answer:
        assert answer.status == 426
