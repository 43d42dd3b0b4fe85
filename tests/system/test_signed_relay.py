"""Pyth's signed update goes on with the price that was chosen from it: through the hub, its workers and the charts."""

from base64 import b64decode
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from feeds.addresses import ASSETS
from feeds.emulator.pyth_signing import simulated_signer
from feeds.pyth.accumulator import Accumulator, check
from tests.system.conftest import Launch
from tests.system.process import command, hub_config, patiently
from tests.system.test_companion import charts_url

SOL, BTC = ASSETS["SOL/USD"].hermes_id, ASSETS["BTC/USD"].hermes_id
ROLES = 'primary = "doves"\nverifiers = ["chainlink", "pyth"]'


async def signed_event(url: str) -> dict[str, Any]:
    """The first event that has a signed update for every price in it."""
    path = f"{url}/v2/updates/price/stream?ids[]={SOL}&ids[]={BTC}&encoding=base64"
    async with aiohttp.ClientSession() as http:
        while True:  # 404 until the charts have heard of the feeds
            async with http.get(path) as events:
                while events.status == 200 and (line := await events.content.readuntil(b"\n\n")):
                    if line.startswith(b"data:"):
                        body: dict[str, Any] = orjson.loads(line[5:])
                        if body["binary"]["data"]:
                            return body


def simulated_sets() -> bytes:
    """Who signs in a simulation, as a file for ``decode --signers``."""
    sets = [
        {
            "kind": one.kind,
            "group": one.group,
            "index": one.index,
            "quorum": one.quorum,
            "keys": [key.hex() for key in one.keys],
        }
        for one in simulated_signer().sets
    ]
    return orjson.dumps({"set": sets})


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_charts_hand_on_is_the_price_and_can_be_verified(
    launch: Launch, tmp_path: Path, workers: int
) -> None:
    config = hub_config().replace(ROLES, 'primary = "pyth"\nverifiers = ["doves", "chainlink"]')
    hub = await launch(config=config.replace("[server]", f"[server]\nworkers = {workers}"), charts=True)
    body = await patiently(signed_event(await charts_url(hub)), "a price with its signed update")
    assert {one["oracle_hub"]["source"] for one in body["parsed"]} == {"pyth"}
    for told, text in zip(body["parsed"], body["binary"]["data"], strict=True):
        update = Accumulator.decode(b64decode(text, validate=True))
        (price,) = update.prices  # of five that were signed together
        assert (price.feed_id.hex(), str(price.price), price.publish_time) == (
            told["id"],
            told["price"]["price"],
            told["price"]["publish_time"],
        )
        assert check(update, simulated_signer().sets).verified
    text = body["binary"]["data"][0].encode()
    signers = tmp_path / "signers.json"
    signers.write_bytes(simulated_sets())
    decoded = await command("decode", "pyth.accumulator", "--verify", "--signers", signers, data=text)
    assert (decoded.status, decoded.lines[0]["verified"]) == (0, True)
    real = await command("decode", "pyth.accumulator", "--verify", data=text)
    assert real.status == 1 and "not verified" in real.err  # nobody who knows the real signers takes it for real
