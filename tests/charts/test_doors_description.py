"""Every answer and message of the UDF and Hermes doors, refusals too, is as the descriptions for machines say."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from oracle_hub.charts import hermes_description, udf, udf_description
from oracle_hub.charts.app import Charts
from oracle_hub.charts.dashboard import pages
from oracle_hub.charts.hermes_ids import PYTH_IDS
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.described import HTTP, STREAMS, as_described, check, payload
from tests.charts.hermes_stage import BTC, PREFIXES, SOL, UNKNOWN, chosen_from_pyth
from tests.client.client_stage import turns_until
from tests.patience import PATIENCE_S

ETH = PYTH_IDS["ETH/USD"]
SOLD = "symbol=Crypto.SOL/USD"
ALL = "resolution=1S&from=0&to=99999999999"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[ChartsStage]:
    stage = await ChartsStage(tmp_path / "charts.sqlite", "SOL/USD", "BTC/USD", "ETH/USD").start_hub()
    yield stage
    await stage.stop()


@pytest.fixture
async def charts(stage: ChartsStage) -> AsyncIterator[Charts]:
    async with stage.charts() as charts:
        for second in range(3):
            stage.tick("SOL/USD", 15_000_000_000 + second, after_us=SECOND_US)
        chosen_from_pyth(stage, "SOL/USD")  # a mark before it, since it takes longer than a price holds
        await stage.heard(charts)
        charts.recorder.harvest()
        yield charts


def udf_answers() -> list[tuple[str, int, bool]]:
    """Query, status, and whether the protocol tells an error."""
    return [
        ("config", 200, False),
        (f"symbols?{SOLD}", 200, False),
        ("symbols?symbol=XRP", 200, True),
        ("symbol_info", 200, False),
        ("symbol_info?group=other", 200, True),
        ("groups", 200, False),
        ("search?query=sol", 200, False),
        ("search?limit=-1", 200, True),
        (f"history?{SOLD}&{ALL}", 200, False),
        (f"history?{SOLD}&resolution=1&from=0&to=1", 200, False),  # no data, and nothing earlier
        (f"history?{SOLD}&resolution=1S&from=99999999998&to=99999999999", 200, False),  # no data, and when there was
        (f"history?{SOLD}&resolution=1m&from=0&to=1", 200, True),
        ("time", 200, False),
        ("quotes?symbols=SOLUSD,BTCUSD,XRPUSD", 200, False),
        ("quotes", 200, True),
        (f"marks?{SOLD}&{ALL}", 200, False),
        (f"marks?{SOLD}&resolution=1", 200, True),
        (f"timescale_marks?{SOLD}&{ALL}", 200, False),
        (f"timescale_marks?{SOLD}&resolution=7", 200, True),
    ]


def hermes_answers(publish_s: int) -> list[tuple[str, str, int]]:
    """Query, described at, status."""
    by_path: dict[str, dict[str, int]] = {
        "/live": {"": 200},
        "/ready": {"": 200},
        "/v2/price_feeds": {"": 200, "?asset_type=stone": 400},
        "/v2/updates/price/latest": {
            f"?ids[]={SOL}&encoding=base64": 200,
            f"?ids[]={SOL}&ids[]={BTC}&ignore_invalid_price_ids=true": 200,  # BTC is absent
            f"?ids[]={SOL}&parsed=false": 200,
            "": 400,
            f"?ids[]={UNKNOWN}": 404,
        },
        "/v2/updates/publisher_stake_caps/latest": {"": 404},
        "/api/latest_price_feeds": {
            f"?ids[]={SOL}": 200,
            f"?ids[]={SOL}&verbose=true&binary=true": 200,
            "": 400,
            f"?ids[]={BTC}": 404,
        },
        "/api/latest_vaas": {f"?ids[]={SOL}": 200, "": 400, f"?ids[]={BTC}": 404},
        "/api/get_price_feed": {
            f"?id={SOL}&publish_time={publish_s}&verbose=true": 200,
            f"?id={SOL}&publish_time=x": 400,
            f"?id={SOL}&publish_time=1": 404,
        },
        "/api/get_vaa": {
            f"?id={SOL}&publish_time={publish_s}": 200,
            f"?id={SOL}": 400,
            f"?id={SOL}&publish_time=1": 404,
        },
        "/api/get_vaa_ccip": {
            f"?data=0x{SOL}{publish_s:016x}": 200,
            "": 400,
            f"?data=0x{UNKNOWN}{1:016x}": 404,
            f"?data=0x{SOL}{1:016x}": 502,
        },
        "/api/price_feed_ids": {"": 200},
    }
    at = "/v2/updates/price/{publish_time}"
    twap = "/v2/updates/twap/{window}/latest"
    return [
        *((path + query, path, status) for path, queries in by_path.items() for query, status in queries.items()),
        (f"/v2/updates/price/{publish_s}?ids[]={SOL}", at, 200),
        (f"/v2/updates/price/now?ids[]={SOL}", at, 400),
        (f"/v2/updates/price/1?ids[]={SOL}", at, 404),
        (f"/v2/updates/twap/60/latest?ids[]={SOL}", twap, 400),
        ("/v2/updates/price/stream", "/v2/updates/price/stream", 400),
        (f"/v2/updates/price/stream?ids[]={UNKNOWN}", "/v2/updates/price/stream", 404),
    ]


async def test_every_answer_of_the_doors_is_as_described(stage: ChartsStage, charts: Charts) -> None:
    """All that is described is asked for: each path with each status."""
    asked: set[tuple[str, int]] = set()
    publish_s = (stage.hub.service.clock_us - 500) // SECOND_US

    async def ask(http: aiohttp.ClientSession, path: str, of: str, status: int) -> Any:
        asked.add((of, status))
        return await as_described(http, path, of, status)

    async with aiohttp.ClientSession(charts.url) as http:
        for prefix in udf.PREFIXES:
            for query, status, is_error in udf_answers():
                told = await ask(http, f"{prefix}/{query}", f"{prefix}/{query.partition('?')[0]}", status)
                assert (isinstance(told, dict) and told.get("s") == "error") is is_error, query
        for prefix in PREFIXES:
            for path, of, status in hermes_answers(publish_s):
                await ask(http, prefix + path, prefix + of, status)
        for path in ("/hermes", "/hermes/", *pages.served()):
            await ask(http, path, path, 200)
        await as_described(http, "/v1/unknown", "/livez", 404)  # as every path with nothing behind it
        asked |= await _streams(stage, http)
    async with aiohttp.ClientSession(charts.url) as http:
        await _refused(stage, charts, http, ask)
    described = {
        (one.path, status)
        for one in (*udf_description.OPERATIONS, *hermes_description.OPERATIONS)
        for status in one.answers
    }
    assert described <= asked


async def _streams(stage: ChartsStage, http: aiohttp.ClientSession) -> set[tuple[str, int]]:
    """Read some of each stream that never ends."""
    streams = {f"{prefix}/streaming": "" for prefix in udf.PREFIXES}
    streams |= {f"{prefix}/v2/updates/price/stream": f"?ids[]={SOL}" for prefix in PREFIXES}
    for path, query in streams.items():
        content = HTTP["paths"][path]["get"]["responses"]["200"]["content"]
        async with http.get(path + query) as answer, asyncio.timeout(PATIENCE_S):
            assert answer.status == 200 and set(content) == {answer.content_type}
            schema = content[answer.content_type]["x-events"]
            kinds: set[str] = set()
            for _ in range(2):
                line = (await answer.content.readuntil(b"\n")).decode().strip()
                while not line.removeprefix("data:").startswith("{"):
                    line = (await answer.content.readuntil(b"\n")).decode().strip()
                value = json.loads(line.removeprefix("data:"))
                check(HTTP, schema, value)
                kinds |= set(value)
                stage.tick("SOL/USD", last_mantissa(stage) + 1)
            assert kinds >= ({"parsed", "binary"} if query else {"f"})
    return {(path, 200) for path in streams}


def last_mantissa(stage: ChartsStage) -> int:
    """The last price of SOL that was decided."""
    mantissa = stage.hub.service.decisions["SOL/USD"].mantissa
    assert mantissa is not None
    return mantissa


async def _refused(stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession, ask: Any) -> None:
    """What has too many listeners, and what is asked while we go away; the hub goes as well."""
    streams = [f"{prefix}/streaming" for prefix in udf.PREFIXES]
    hermes = [f"{prefix}/v2/updates/price/stream" for prefix in PREFIXES]
    await turns_until(lambda: charts.context.listening == 0)
    charts.context._by_address["127.0.0.1"] = charts.settings.max_listeners_per_ip
    for path in (*streams, *hermes):
        await ask(http, f"{path}?ids[]={SOL}", path, 429)
    charts.context.stop_listening()
    for path in (*streams, *hermes):
        await ask(http, f"{path}?ids[]={ETH}", path, 503)
    for prefix in udf.PREFIXES:
        for name in ("history", "marks", "timescale_marks"):
            await ask(http, f"{prefix}/{name}?{SOLD}&{ALL}", f"{prefix}/{name}", 503)
    for prefix in PREFIXES:
        for path, of in (  # an average that was not read before can't be read now
            (f"/v2/updates/price/latest?ids[]={ETH}", "/v2/updates/price/latest"),
            (f"/v2/updates/price/1?ids[]={ETH}", "/v2/updates/price/{publish_time}"),
            (f"/api/latest_price_feeds?ids[]={ETH}", "/api/latest_price_feeds"),
            (f"/api/latest_vaas?ids[]={ETH}", "/api/latest_vaas"),
            (f"/api/get_price_feed?id={ETH}&publish_time=1", "/api/get_price_feed"),
            (f"/api/get_vaa?id={ETH}&publish_time=1", "/api/get_vaa"),
            (f"/api/get_vaa_ccip?data=0x{ETH}{1:016x}", "/api/get_vaa_ccip"),
        ):
            await ask(http, prefix + path, prefix + of, 503)
    await stage.hub.server.stop("gone")
    while charts.live.status.connected:
        await http.get("/livez")
    for prefix in PREFIXES:
        await ask(http, f"{prefix}/ready", f"{prefix}/ready", 503)


async def test_messages_of_the_hermes_websocket_are_as_described(stage: ChartsStage, charts: Charts) -> None:
    async with aiohttp.ClientSession(charts.url) as http:
        for prefix, channel in hermes_description.CHANNELS.items():
            requests: list[dict[str, Any]] = [
                {"type": "subscribe", "ids": [UNKNOWN]},
                {"type": "subscribe", "ids": [f"0x{SOL}", BTC], "verbose": True, "binary": True, "oracle_hub": True},
            ]
            leave = {"type": "unsubscribe", "ids": [BTC]}
            told: set[tuple[str, str]] = set()
            wanted = {("response", "error"), ("response", "success"), ("price_update", ""), ("price_absent", "")}
            async with http.ws_connect(f"{prefix}/ws") as ws, asyncio.timeout(PATIENCE_S):
                for request in requests:
                    check(STREAMS, payload(channel, "client", request), request)
                    await ws.send_json(request)
                while told != wanted:
                    message = await ws.receive_json()
                    check(STREAMS, payload(channel, "server", message), message)
                    told.add((message["type"], message.get("status", "")))
                check(STREAMS, payload(channel, "client", leave), leave)
                await ws.send_json(leave)
                while (message := await ws.receive_json())["type"] != "response":
                    pass
                assert message["status"] == "success"


async def test_a_page_of_another_origin_is_refused_as_described(charts: Charts) -> None:
    async with aiohttp.ClientSession(charts.url, headers={"Origin": "https://a.example"}) as http:
        for of in ("/udf/config", "/api/price_feed_ids", "/livez"):
            assert "403" not in HTTP["paths"][of]["get"]["responses"]  # it is among the others: `default`
            assert (await as_described(http, of, of, 403))["error"]["code"] == "origin_refused"
