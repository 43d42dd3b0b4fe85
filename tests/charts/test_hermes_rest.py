"""Hermes' REST routes beside a hub: every form of ids, shapes held against real answers, and no price told as none."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from oracle_hub.charts.app import Charts
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.hermes_stage import BTC, PREFIXES, SOL, UNKNOWN, get, shape, without_ours

LATEST, V1 = "/v2/updates/price/latest", "/api/latest_price_feeds"


@pytest.fixture(scope="module")
def samples(fixtures_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir / "hermes_rest_samples.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def described(fixtures_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir / "hermes_openapi.json").read_bytes())["openapi"]
    return found


async def fallback_on_pyth(stage: ChartsStage, charts: Charts) -> None:
    """Doves is stale, the two others agree, and Pyth's price, which has a confidence interval, is the more recent."""
    stage.tick("SOL/USD", 15_000_400_000, "chainlink", after_us=10 * SECOND_US)
    stage.tick("SOL/USD", 15_000_500_000, "pyth")
    await stage.heard(charts)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "ids",
    [
        f"ids[]={SOL}",
        f"ids%5B%5D=0x{SOL}",
        f"ids[]=0X{SOL.upper()}",
        f"ids={SOL.upper()}",
        f"ids[0]={SOL}&ids[1]=0x{SOL}",
    ],
)
async def test_every_form_of_an_id_is_the_feed(http: aiohttp.ClientSession, prefix: str, ids: str) -> None:
    status, body = await get(http, f"{prefix}{LATEST}?{ids}")
    assert status == 200
    assert [(one["id"], one["price"]["price"]) for one in body["parsed"]] == [(SOL, "15000000000")]
    status, feeds = await get(http, f"{prefix}{V1}?{ids}")
    assert (status, [one["id"] for one in feeds]) == (200, [SOL])


async def test_answers_have_the_keys_and_types_of_real_ones(
    http: aiohttp.ClientSession, samples: dict[str, Any]
) -> None:
    _, latest = await get(http, f"{LATEST}?ids[]={SOL}&ids[]={BTC}")
    real = samples["v2_latest"]["body"]
    real["binary"]["data"] = []  # ours is not signed
    assert shape(without_ours(latest)) == shape(real)
    _, base64 = await get(http, f"{LATEST}?ids[]={SOL}&encoding=base64&parsed=false")
    assert without_ours(base64) == {"binary": {"encoding": "base64", "data": []}}
    _, feeds = await get(http, f"{V1}?ids[]={SOL}&verbose=true&binary=true")
    assert shape(without_ours(feeds)) == [shape(samples["v1_price_feed_verbose_binary"]["body"])]
    _, feeds = await get(http, f"{V1}?ids[]={SOL}")
    assert set(without_ours(feeds)[0]) == {"id", "price", "ema_price"}


async def test_answers_hold_against_the_description_of_hermes(
    http: aiohttp.ClientSession, described: dict[str, Any]
) -> None:
    for path, of in (
        (f"{LATEST}?ids[]={SOL}", LATEST),
        (f"{V1}?ids[]={SOL}&verbose=true&binary=true", V1),
        ("/v2/price_feeds", "/v2/price_feeds"),
        ("/api/price_feed_ids", "/api/price_feed_ids"),
    ):
        status, body = await get(http, path)
        assert status == 200
        operation = described["paths"][of]["get"]["responses"]["200"]
        schema = operation["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": described["components"]}).validate(body)
    assert set(described["paths"]) <= set((await get(http, "/hermes/"))[1])  # every route that Hermes describes


async def test_a_price_says_where_it_comes_from(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    await fallback_on_pyth(stage, charts)
    now_us = stage.hub.service.clock_us
    _, body = await get(http, f"{LATEST}?ids[]={SOL}")
    (entry,) = body["parsed"]
    assert entry["price"] == {
        "price": "15000500000",
        "conf": "12345",
        "expo": -8,
        "publish_time": (now_us - 500) // SECOND_US,
    }
    assert entry["metadata"]["slot"] == now_us
    assert entry["metadata"]["proof_available_time"] == now_us // SECOND_US
    assert entry["oracle_hub"] == {
        "feed": "SOL/USD",
        "state": "degraded",
        "source": "pyth",
        "rule": "R2",
        "reason": entry["oracle_hub"]["reason"],
        "publish_time_us": now_us - 500,
        "decided_us": now_us,
        "valid_until_us": stage.points[-1].valid_until_us,
        "instance": stage.hub.service.instance,
        "epoch": stage.hub.service.epoch,
        "seq": stage.hub.service.seq,
        "conf_origin": "source",
        "ema_origin": "decisions",
        "simulated": False,
    }
    assert body["oracle_hub"] == {"simulated": False, "absent": {}}


async def test_without_a_confidence_interval_it_is_the_distance_of_the_farthest_usable_source(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    stage.tick("SOL/USD", 15_000_300_000, "chainlink")
    stage.tick("SOL/USD", 14_999_900_000, "pyth")
    stage.tick("SOL/USD", 15_000_000_000, "doves")
    await stage.heard(charts)
    _, body = await get(http, f"{LATEST}?ids[]={SOL}")
    assert body["parsed"][0]["price"]["conf"] == "300000"
    assert body["parsed"][0]["oracle_hub"]["conf_origin"] == "inputs"
    _, body = await get(http, f"{LATEST}?ids[]={BTC}")
    assert body["parsed"][0]["price"]["conf"] == "1"  # all agree; 0 would mean that it is not known


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_ids_that_no_feed_has(http: aiohttp.ClientSession, prefix: str) -> None:
    other = "CD" * 32
    refused = (404, f"Price ids not found: 0x{UNKNOWN}, 0x{other.lower()}")
    assert await get(http, f"{prefix}{LATEST}?ids[]={SOL}&ids[]={UNKNOWN}&ids[]={other}") == refused
    assert await get(http, f"{prefix}{V1}?ids[]={UNKNOWN}&ids[]={SOL}&ids[]=0x{other}") == refused
    assert await get(http, f"{prefix}/v2/updates/price/stream?ids[]={UNKNOWN}&ids[]={other}") == refused
    assert await get(http, f"{prefix}/v2/updates/price/1790000000?ids[]={UNKNOWN}&ids[]={other}") == refused
    assert (await get(http, f"{prefix}/api/get_vaa?id={UNKNOWN}&publish_time=1"))[0] == 404
    status, body = await get(http, f"{prefix}{LATEST}?ids[]={UNKNOWN}&ids[]={SOL}&ignore_invalid_price_ids=true")
    assert (status, [one["id"] for one in body["parsed"]]) == (200, [SOL])
    # A parameter of the second API only.
    assert (await get(http, f"{prefix}{V1}?ids[]={UNKNOWN}&ignore_invalid_price_ids=true"))[0] == 404


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "missing field `ids`"),
        ("ids[]=abc", "ids[]: invalid price feed id 'abc': expected 64 hex digits, with or without 0x"),
        (f"ids[]={SOL}&encoding=base58", "encoding: unknown variant `base58`, expected `hex` or `base64`"),
        (f"ids[]={SOL}&parsed=1", "parsed: provided string was not `true` or `false`"),
    ],
)
async def test_a_query_that_cannot_be_read(http: aiohttp.ClientSession, query: str, said: str) -> None:
    refused = (400, f"Failed to deserialize query string: {said}")
    assert await get(http, f"{LATEST}?{query}") == refused
    assert await get(http, f"/hermes{V1}?{query}") == refused
    assert await get(http, f"/v2/updates/price/1790000000?{query}") == refused


async def test_a_feed_without_a_price_is_absent(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    stage.tick("BTC/USD", 6_000_000_000_000, after_us=5 * SECOND_US)
    stage.wait(6 * SECOND_US)  # SOL's sources are stale, BTC's are not
    await stage.heard(charts)
    refused = (404, f"Price ids not found: 0x{SOL}")
    assert await get(http, f"{LATEST}?ids[]={SOL}&ids[]={BTC}") == refused
    assert await get(http, f"{V1}?ids[]={SOL}") == refused
    async with http.get(f"{LATEST}?ids[]={SOL}") as answer:
        assert answer.headers["Oracle-Hub-Absent"] == "SOL/USD=too_few_sources"
    status, body = await get(http, f"{LATEST}?ids[]={SOL}&ids[]={BTC}&ignore_invalid_price_ids=true")
    assert (status, [one["id"] for one in body["parsed"]]) == (200, [BTC])
    assert body["oracle_hub"]["absent"] == {SOL: "too_few_sources"}
    assert SOL in (await get(http, "/api/price_feed_ids"))[1]  # it exists; it has no price


async def test_without_a_hub_nothing_has_a_price(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    assert await get(http, "/ready") == (200, "OK")
    await stage.hub.server.stop("gone")
    while charts.live.status.connected:
        await http.get("/live")
    status, evidence = await get(http, "/hermes/ready")
    assert (status, evidence["has_completed_recently"], evidence["price_feeds_metadata_len"]) == (503, False, 2)
    assert await get(http, f"{LATEST}?ids[]={SOL}") == (404, f"Price ids not found: 0x{SOL}")
    assert await get(http, "/live") == (200, "OK")


async def test_metadata_of_feeds(http: aiohttp.ClientSession) -> None:
    status, feeds = await get(http, "/hermes/v2/price_feeds")
    assert status == 200
    assert [one["id"] for one in feeds] == [BTC, SOL]
    assert feeds[1]["attributes"] == {
        "asset_type": "crypto",
        "base": "SOL",
        "description": "SOLANA / US DOLLAR",
        "display_symbol": "SOL/USD",
        "generic_symbol": "SOLUSD",
        "quote_currency": "USD",
        "schedule": "America/New_York;O,O,O,O,O,O,O;",
        "symbol": "Crypto.SOL/USD",
    }
    assert [one["id"] for one in (await get(http, "/v2/price_feeds?query=btc&asset_type=crypto"))[1]] == [BTC]
    assert await get(http, "/v2/price_feeds?asset_type=metal") == (200, [])
    assert (await get(http, "/v2/price_feeds?asset_type=stones"))[0] == 400
    assert await get(http, "/api/price_feed_ids") == (200, sorted([SOL, BTC]))


async def test_signed_updates_are_not_made_up(http: aiohttp.ClientSession) -> None:
    missing = (404, "Update data not found")
    assert await get(http, f"/api/latest_vaas?ids[]={SOL}") == missing
    assert await get(http, f"/api/get_vaa?id={SOL}&publish_time=1790000000") == missing
    assert await get(http, "/v2/updates/publisher_stake_caps/latest") == missing
    data = f"0x{SOL}{1_790_000_000:016x}"
    assert await get(http, f"/api/get_vaa_ccip?data={data}") == (502, "CCIP update data not found")
    assert await get(http, f"/api/get_vaa_ccip?data={data}00") == (400, "Invalid CCIP input")
    gone = "The TWAP endpoint has been deprecated and is no longer available."
    assert await get(http, f"/v2/updates/twap/60/latest?ids[]={SOL}") == (400, gone)


async def test_the_first_price_published_at_or_after_a_time(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    start_s = stage.hub.service.clock_us // SECOND_US
    for second in range(1, 5):
        stage.tick("SOL/USD", 15_000_000_000 + second, after_us=SECOND_US)
        stage.tick("SOL/USD", 15_000_000_100 + second)
        stage.tick("BTC/USD", 6_000_000_000_000 + second)
    await stage.heard(charts)
    for at_s in (start_s + 2, start_s + 4):
        status, body = await get(http, f"/v2/updates/price/{at_s}?ids[]={SOL}&ids[]={BTC}")
        assert status == 200
        told = {one["id"]: one for one in body["parsed"]}
        assert told[SOL]["price"]["price"] == str(15_000_000_000 + at_s - start_s)
        assert told[BTC]["price"]["price"] == str(6_000_000_000_000 + at_s - start_s)
        assert told[SOL]["price"]["publish_time"] == at_s
        assert told[SOL]["metadata"]["prev_publish_time"] == at_s - 1
        assert told[SOL]["oracle_hub"]["conf_origin"] == "minute" and int(told[SOL]["price"]["conf"]) >= 100
        status, feed = await get(
            http, f"/hermes/api/get_price_feed?id=0x{SOL}&publish_time={at_s}&verbose=true&binary=true"
        )
        assert (status, feed["price"], feed["ema_price"]) == (200, told[SOL]["price"], told[SOL]["ema_price"])
        assert feed["vaa"] == ""
    missing = (404, "Update data not found")
    assert await get(http, f"/v2/updates/price/{start_s - 60}?ids[]={SOL}") == missing  # before the record
    assert await get(http, f"/v2/updates/price/{start_s + 60}?ids[]={SOL}") == missing  # not yet
    assert await get(http, f"/v2/updates/price/{10**18}?ids[]={SOL}") == missing
    assert (await get(http, f"/v2/updates/price/now?ids[]={SOL}"))[0] == 400
    assert (await get(http, f"/api/get_price_feed?id={SOL}"))[0] == 400
    # The flag rescues a batch of which one feed has nothing yet.
    stage.tick("SOL/USD", 15_000_000_900, after_us=SECOND_US)
    await stage.heard(charts)
    path = f"/v2/updates/price/{start_s + 5}?ids[]={SOL}&ids[]={BTC}"
    assert await get(http, path) == missing
    status, body = await get(http, f"{path}&ignore_invalid_price_ids=true")
    assert (status, [one["id"] for one in body["parsed"]]) == (200, [SOL])
    assert body["oracle_hub"]["absent"] == {BTC: "not_on_record"}


async def test_the_average_is_the_same_after_a_restart(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        await get(http, f"{LATEST}?ids[]={SOL}")  # from here on it follows the decisions
        for step in range(1, 31):
            stage.tick("SOL/USD", 15_000_000_000 + 1_000_000 * step, after_us=3 * SECOND_US)
            await stage.heard(charts)
        _, before = await get(http, f"{LATEST}?ids[]={SOL}")
        at_s = before["parsed"][0]["price"]["publish_time"]
        _, then = await get(http, f"/v2/updates/price/{at_s}?ids[]={SOL}")
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        _, after = await get(http, f"{LATEST}?ids[]={SOL}")
    average = before["parsed"][0]["ema_price"]
    assert 15_000_000_000 < int(average["price"]) < 15_003_000_000
    for read_back in (then, after):  # minutes of bars stand for their decisions there
        found = read_back["parsed"][0]["ema_price"]
        assert abs(int(found["price"]) - int(average["price"])) < 100_000
        assert abs(int(found["conf"]) - int(average["conf"])) < 100_000


async def test_other_origins_are_as_configured(stage: ChartsStage) -> None:
    page = {"Origin": "https://a.example"}
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        assert (await http.get(f"{LATEST}?ids[]={SOL}", headers=page)).status == 403
    async with stage.charts(allowed_origins=("*",)) as charts, aiohttp.ClientSession(charts.url) as http:
        for path in (f"{LATEST}?ids[]={SOL}", f"/hermes/v2/updates/price/stream?ids[]={SOL}"):
            async with http.get(path, headers=page) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
