"""Holds answers and messages against the descriptions for machines."""

import asyncio
from typing import Any

import aiohttp
import orjson
from jsonschema import Draft202012Validator

from oracle_hub.charts.description import asyncapi, openapi
from tests.patience import PATIENCE_S

HTTP, STREAMS = openapi("1.2.3"), asyncapi("1.2.3")


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Fail where a value is not as a schema of a document says."""
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def payload(channel: str, side: str, message: dict[str, Any]) -> dict[str, Any]:
    """The schema of a message."""
    found: dict[str, Any] = STREAMS["channels"][channel]["messages"][f"{side}.{message['type']}"]["payload"]
    return found


async def as_described(http: aiohttp.ClientSession, path: str, of: str, status: int) -> Any:
    """Ask for a path, and fail where status, media type or body are not as described at ``of``; returns the body."""
    async with asyncio.timeout(PATIENCE_S), http.get(path) as answer:
        body = await answer.read()
        assert answer.status == status, (path, answer.status, body[:300])
        responses = HTTP["paths"][of]["get"]["responses"]
        content = responses.get(str(status), responses["default"])["content"]
        assert set(content) == {answer.content_type}, path
        if answer.content_type != "application/json":
            return body.decode()
        value = orjson.loads(body)
        check(HTTP, content["application/json"]["schema"], value)
        return value
