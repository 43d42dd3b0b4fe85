"""What tests of the Hermes doors share: ids, addresses, and the shape of a JSON value."""

from base64 import b64encode
from typing import Any

import aiohttp

from feeds.emulator.pyth_signing import simulated_signer
from feeds.pyth.accumulator import PriceMessage
from oracle_hub.charts.hermes_ids import PYTH_IDS
from tests.charts.charts_stage import SECOND_US, ChartsStage

SOL, BTC = PYTH_IDS["SOL/USD"], PYTH_IDS["BTC/USD"]
UNKNOWN = "ab" * 32
PREFIXES = ("", "/hermes")


def shape(value: Any) -> Any:
    """Keys and types, without values: what a client relies on."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__


def without_ours(value: Any) -> Any:
    """The same without the key that is not Hermes'."""
    if isinstance(value, dict):
        return {key: without_ours(part) for key, part in value.items() if key != "oracle_hub"}
    return [without_ours(part) for part in value] if isinstance(value, list) else value


def chosen_from_pyth(stage: ChartsStage, *feeds: str) -> dict[str, bytes]:
    """Have Pyth's prices of these feeds chosen, each signed; returns the updates, by feed, which the hub hands on."""
    base = {"SOL/USD": 15_000_000_000, "BTC/USD": 6_000_000_000_000}
    for feed in feeds:
        stage.tick(feed, base[feed] + 400, "chainlink", after_us=12 * SECOND_US // len(feeds))
    signed: dict[str, bytes] = {}
    for feed in feeds:
        stage.tick(feed, base[feed] + 500, "pyth", after_us=SECOND_US)
        signed[feed] = sign(stage, feed)
    return signed


def sign(stage: ChartsStage, feed: str) -> bytes:
    """Have the hub know a signed update of the price of a feed that was chosen last."""
    decision = stage.hub.service.decisions[feed]
    assert decision.source == "pyth" and decision.mantissa is not None and decision.publish_us is not None
    publish_s = decision.publish_us // SECOND_US
    price_id, mantissa = bytes.fromhex(PYTH_IDS[feed]), decision.mantissa
    price = PriceMessage(price_id, mantissa, 7, decision.expo, publish_s, publish_s - 1, mantissa, 8)
    (update,) = simulated_signer().updates([price], publish_s)
    key = feed, decision.source, decision.publish_us, decision.mantissa
    stage.hub.service.signed_updates[key] = b64encode(update).decode()
    return update


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    """Status, and the JSON or the text that came with it."""
    async with http.get(path) as answer:
        if answer.content_type == "application/json":
            return answer.status, await answer.json()
        assert answer.content_type == "text/plain"
        return answer.status, await answer.text()
