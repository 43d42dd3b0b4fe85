"""What tests of the Hermes doors share: ids, addresses, and the shape of a JSON value."""

from typing import Any

import aiohttp

from oracle_hub.charts.hermes_ids import PYTH_IDS

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


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    """Status, and the JSON or the text that came with it."""
    async with http.get(path) as answer:
        if answer.content_type == "application/json":
            return answer.status, await answer.json()
        assert answer.content_type == "text/plain"
        return answer.status, await answer.text()
