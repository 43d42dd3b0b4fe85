"""What tests of the Hermes doors share: ids, addresses, and the shape of a JSON value."""

from base64 import b64encode
from typing import Any

import aiohttp

from feeds.emulator.pyth_signing import simulated_signer
from feeds.pyth.accumulator import Accumulator, PriceMessage, excerpt
from oracle_hub.charts.hermes_ids import PYTH_IDS
from oracle_hub.core.hub import Decision
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


def sign(stage: ChartsStage, *feeds: str) -> bytes:
    """Have the hub know signed updates of the prices of these feeds that were chosen last: one each, of one message.

    Returns the update of all of them.
    """
    decisions = [stage.hub.service.decisions[feed] for feed in feeds]
    whole = simulated_signer().updates([_message(decision) for decision in decisions], _publish_s(decisions[0]))[0]
    for decision, one in zip(decisions, Accumulator.decode(whole).updates, strict=True):
        key = decision.feed, str(decision.source), int(decision.publish_us or 0), int(decision.mantissa or 0)
        stage.hub.service.signed_updates[key] = b64encode(excerpt(whole, [one])).decode()
    return whole


def _message(decision: Decision) -> PriceMessage:
    assert decision.source == "pyth" and decision.mantissa is not None
    price_id, mantissa, publish_s = bytes.fromhex(PYTH_IDS[decision.feed]), decision.mantissa, _publish_s(decision)
    return PriceMessage(price_id, mantissa, 7, decision.expo, publish_s, publish_s - 1, mantissa, 8)


def _publish_s(decision: Decision) -> int:
    assert decision.publish_us is not None
    return decision.publish_us // SECOND_US


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    """Status, and the JSON or the text that came with it."""
    async with http.get(path) as answer:
        if answer.content_type == "application/json":
            return answer.status, await answer.json()
        assert answer.content_type == "text/plain"
        return answer.status, await answer.text()
