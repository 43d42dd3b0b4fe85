"""Hermes' ``binary`` and ``vaa``: the signed update of the very price that is told, or nothing."""

import asyncio
from base64 import b64decode, b64encode
from typing import Any

import aiohttp

from feeds.emulator.pyth_signing import simulated_signer
from feeds.pyth.accumulator import Accumulator, check
from oracle_hub.charts.app import Charts
from oracle_hub.server.service import SignedAnswer, SignedQuery
from tests.charts.charts_stage import SECOND_US, ChartsStage
from tests.charts.hermes_stage import BTC, SOL, chosen_from_pyth, get, sign
from tests.client.client_stage import turns_until
from tests.patience import PATIENCE_S

LATEST = "/v2/updates/price/latest"


class Asked:
    """What the hub was asked for, through its real server."""

    def __init__(self, stage: ChartsStage) -> None:
        self.prices: list[tuple[str, str, int]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._answer = stage.hub.service.signed
        stage.hub.service.signed = self._signed  # type: ignore[method-assign]

    async def _signed(self, asked: SignedQuery) -> SignedAnswer:
        self.prices.append((asked.feed, asked.source, asked.price))
        await self.may_answer.wait()
        return await self._answer(asked)


async def test_the_update_behind_the_price_goes_with_it(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    asked = Asked(stage)
    signed = chosen_from_pyth(stage, "SOL/USD")["SOL/USD"]
    await stage.heard(charts)
    for _ in range(2):
        _, body = await get(http, f"{LATEST}?ids[]={SOL}")
        assert body["binary"] == {"encoding": "hex", "data": [signed.hex()]}
    _, body = await get(http, f"{LATEST}?ids[]={SOL}&encoding=base64")
    (told,) = body["binary"]["data"]
    update = Accumulator.decode(b64decode(told, validate=True))
    (price,) = update.prices
    parsed = body["parsed"][0]["price"]
    assert (str(price.price), price.publish_time, price.exponent) == (
        parsed["price"],
        parsed["publish_time"],
        parsed["expo"],
    )
    assert check(update, simulated_signer().sets).verified
    _, (feed,) = await get(http, f"/hermes/api/latest_price_feeds?ids[]={SOL}&binary=true")
    assert feed["vaa"] == told
    assert await get(http, f"/api/latest_vaas?ids[]={SOL}") == (200, [told])
    then = f"publish_time={price.publish_time}"
    assert await get(http, f"/api/get_vaa?id={SOL}&{then}") == (
        200,
        {"vaa": told, "publishTime": price.publish_time},
    )
    _, body = await get(http, f"/v2/updates/price/{price.publish_time}?ids[]={SOL}")
    assert body["binary"]["data"] == [signed.hex()]
    _, body = await get(http, f"/api/get_vaa_ccip?data=0x{SOL}{price.publish_time:016x}")
    assert body == {"data": f"0x{signed.hex()}"}
    assert asked.prices == [("SOL/USD", "pyth", 15_000_000_500)]  # once, whoever wanted it


async def test_streams_have_it_too(stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession) -> None:
    chosen_from_pyth(stage, "SOL/USD")
    await stage.heard(charts)
    async with (
        asyncio.timeout(PATIENCE_S),
        http.ws_connect("/ws") as ws,
        http.get(f"/v2/updates/price/stream?ids[]={SOL}") as events,
    ):
        await ws.send_json({"type": "subscribe", "ids": [SOL], "binary": True})
        for step in range(3):
            mantissa = 15_000_000_600 + step
            batch = stage.hub.service.try_tick("SOL/USD", mantissa, "pyth")
            assert batch is not None
            signed = sign(stage, "SOL/USD")  # the hub knows it before it tells the price
            stage.hub.server.publish(batch)
            told: dict[str, Any] = {}
            while told.get("price_feed", {}).get("price", {}).get("price") != str(mantissa):
                told = await ws.receive_json()
            assert b64decode(told["price_feed"]["vaa"]) == signed
            text = ""
            while f'"price":"{mantissa}"' not in text:
                text = (await events.content.readuntil(b"\n\n")).decode()
            assert f'"data":["{signed.hex()}"]' in text


async def test_no_other_source_has_one(stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession) -> None:
    asked = Asked(stage)
    stage.tick("SOL/USD", 15_000_000_700)  # all agree: doves is chosen
    await stage.heard(charts)
    for _ in range(3):
        _, body = await get(http, f"{LATEST}?ids[]={SOL}")
        assert (body["parsed"][0]["oracle_hub"]["source"], body["binary"]["data"]) == ("doves", [])
        stage.tick("SOL/USD", 15_000_000_700)
        await stage.heard(charts)
    assert (await get(http, f"/api/latest_vaas?ids[]={SOL}"))[0] == 404
    assert asked.prices == [("SOL/USD", "doves", 15_000_000_700)]  # it never signs, which is asked once a minute


async def test_all_prices_of_an_answer_are_signed_or_none(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    both = f"ids[]={SOL}&ids[]={BTC}"
    signed = chosen_from_pyth(stage, "SOL/USD", "BTC/USD")
    await stage.heard(charts)
    _, body = await get(http, f"{LATEST}?{both}")
    assert [one["id"] for one in body["parsed"]] == [SOL, BTC]
    assert body["binary"]["data"] == [signed["SOL/USD"].hex(), signed["BTC/USD"].hex()]
    stage.tick("BTC/USD", 6_000_000_000_600)  # doves is back
    await stage.heard(charts)
    _, body = await get(http, f"{LATEST}?{both}")
    assert ([one["id"] for one in body["parsed"]], body["binary"]["data"]) == ([SOL, BTC], [])
    assert (await get(http, f"/api/latest_vaas?{both}"))[0] == 404
    _, feeds = await get(http, f"/api/latest_price_feeds?{both}&binary=true")
    assert [one["vaa"] != "" for one in feeds] == [True, False]


async def test_prices_of_one_signed_message_are_one_update(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    """As Hermes has it: many a program submits the first of ``binary.data`` only."""
    chosen_from_pyth(stage, "SOL/USD", "BTC/USD")
    whole = sign(stage, "SOL/USD", "BTC/USD")
    await stage.heard(charts)
    both = f"ids[]={SOL}&ids[]={BTC}"
    _, body = await get(http, f"{LATEST}?{both}")
    assert body["binary"]["data"] == [whole.hex()]
    update = Accumulator.decode(whole)
    assert [price.feed_id.hex() for price in update.prices] == [one["id"] for one in body["parsed"]] == [SOL, BTC]
    assert check(update, simulated_signer().sets).verified
    assert await get(http, f"/api/latest_vaas?{both}") == (200, [b64encode(whole).decode()])
    async with asyncio.timeout(PATIENCE_S), http.get(f"/v2/updates/price/stream?{both}") as events:
        assert f'"data":["{whole.hex()}"]' in (await events.content.readuntil(b"\n\n")).decode()


async def test_an_older_update_never_goes_with_a_newer_price(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    asked = Asked(stage)
    chosen_from_pyth(stage, "SOL/USD")
    await stage.heard(charts)
    asked.may_answer.clear()
    waiting = asyncio.create_task(get(http, f"{LATEST}?ids[]={SOL}"))
    await turns_until(lambda: bool(asked.prices))
    stage.tick("SOL/USD", 15_000_000_900, "pyth")  # another price, of which nothing is known, before the answer comes
    await stage.heard(charts)
    asked.may_answer.set()
    _, body = await waiting
    assert body["parsed"][0]["price"]["price"] == "15000000900"
    assert body["binary"]["data"] == []


async def test_a_hub_that_does_not_answer_costs_only_the_update(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    asked = Asked(stage)
    signed = chosen_from_pyth(stage, "SOL/USD")["SOL/USD"]
    await stage.heard(charts)
    asked.may_answer.clear()
    status, body = await get(http, f"{LATEST}?ids[]={SOL}")
    assert (status, body["parsed"][0]["price"]["price"], body["binary"]["data"]) == (200, "15000000500", [])
    asked.may_answer.set()
    _, body = await get(http, f"{LATEST}?ids[]={SOL}")  # asked again
    assert body["binary"]["data"] == [signed.hex()]
    assert charts.context.failures == 0


async def test_what_is_over_is_not_told_because_it_was_waited_for(
    stage: ChartsStage, charts: Charts, http: aiohttp.ClientSession
) -> None:
    asked = Asked(stage)
    chosen_from_pyth(stage, "SOL/USD")
    await stage.heard(charts)
    asked.may_answer.clear()
    waiting = asyncio.create_task(get(http, f"{LATEST}?ids[]={SOL}"))
    await turns_until(lambda: bool(asked.prices))
    stage.wait(12 * SECOND_US)
    await stage.heard(charts)
    asked.may_answer.set()
    assert await waiting == (404, f"Price ids not found: 0x{SOL}")
