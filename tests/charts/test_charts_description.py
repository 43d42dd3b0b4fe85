"""The descriptions for machines are well formed, and real answers and messages are as they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from openapi_spec_validator import validate
from websockets.asyncio.client import connect

from oracle_hub.charts.app import application
from tests.charts.charts_stage import SECOND_US, ChartsStage, bars_client
from tests.charts.described import HTTP, STREAMS, as_described, check, payload


def references(value: object) -> Iterator[str]:
    """All ``$ref`` in a document."""
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


@pytest.fixture
async def stage(tmp_path: Path) -> ChartsStage:
    return await ChartsStage(tmp_path / "charts.sqlite").start_hub()


def test_the_openapi_document_is_one() -> None:
    validate(HTTP)
    assert HTTP["info"]["version"] == "1.2.3"


@pytest.mark.parametrize("document", [HTTP, STREAMS], ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 10
    for reference in found:
        part: Any = document
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]
        assert part


async def test_every_path_is_described(stage: ChartsStage) -> None:
    async with stage.charts() as charts:
        app = application(charts.context, charts._doors)
        paths = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
        sockets = {channel["address"] for channel in STREAMS["channels"].values()}
        assert sockets == {"/v1/bars", "/v1/stream", "/ws", "/hermes/ws"}
        assert paths - sockets == set(HTTP["paths"])
    await stage.stop()


async def test_real_answers_are_as_described(stage: ChartsStage) -> None:
    async with stage.charts() as charts, aiohttp.ClientSession(charts.url) as http:
        stage.tick("SOL/USD", 15_000_000_000, after_us=3 * SECOND_US)
        await stage.heard(charts)
        charts.recorder.harvest()
        for path, of, status in (
            ("/livez", "/livez", 200),
            ("/readyz", "/readyz", 200),
            ("/v1/bars/SOL-USD?resolution=1S", "/v1/bars/{feed}", 200),
            ("/v1/bars/SOL/USD?resolution=1M&from=0&fill=prev", "/v1/bars/{feed}", 200),
            ("/v1/bars/SOL-USD?resolution=7", "/v1/bars/{feed}", 400),
            ("/v1/bars/SOL-USD?from=yesterday", "/v1/bars/{feed}", 400),
            ("/v1/bars/SOL-USD?fill=up", "/v1/bars/{feed}", 400),
            ("/v1/bars/XRP-USD", "/v1/bars/{feed}", 404),
            ("/v1/marks/SOL-USD", "/v1/marks/{feed}", 200),
            ("/v1/trends/SOL-USD", "/v1/trends/{feed}", 200),
            ("/v1/trends/SOL-USD?seconds=9999", "/v1/trends/{feed}", 400),
            ("/v1/trends/XRP-USD", "/v1/trends/{feed}", 404),
            ("/v1/hub", "/v1/hub", 200),
            ("/v1/alerts", "/v1/alerts", 200),
            ("/v1/sse?feeds=XRP-USD", "/v1/sse", 404),
            ("/openapi.json", "/openapi.json", 200),
            ("/asyncapi.json", "/asyncapi.json", 200),
        ):
            await as_described(http, path, of, status)
        async with http.get("/metrics") as answer:
            assert answer.content_type == "text/plain" and "oraclehub_charts_connected 1.0" in await answer.text()
    await stage.stop()


async def test_real_messages_and_events_are_as_described(stage: ChartsStage) -> None:
    asked = {"type": "subscribe", "feeds": ["*"], "resolution": "1S", "count": 5, "id": "a"}
    requests = [asked, {**asked, "resolution": "x"}, {"type": "ping", "id": 7}, {"type": "unsubscribe", "sub": 1}]
    async with stage.charts(heartbeat_ms=50) as charts, bars_client(charts) as client:
        seen = {"hello"}
        for request in requests:
            check(STREAMS, payload("bars", "client", request), request)
        await client.socket.send(orjson.dumps(asked).decode())
        while not {"hello", "subscribed", "snapshot", "bars", "heartbeat", "error", "pong", "unsubscribed"} <= seen:
            message = orjson.loads(await client.socket.recv())
            check(STREAMS, payload("bars", "server", message), message)
            if message["type"] == "snapshot":
                stage.tick("SOL/USD", 15_000_000_777, after_us=SECOND_US)
            elif message["type"] == "bars" and "bars" not in seen:
                for request in requests[1:]:
                    await client.socket.send(orjson.dumps(request).decode())
            seen.add(message["type"])
        await client.socket.send('{"type": "subscribe", "id": "b", "feeds": ["*"], "resolution": "1S", "count": -1}')
        while (message := orjson.loads(await client.socket.recv()))["type"] != "error":
            pass
        check(STREAMS, payload("bars", "server", message), message)
        assert (message["id"], message["code"]) == ("b", "bad_request")
        async with aiohttp.ClientSession(charts.url) as http, http.get("/v1/sse") as events:
            kinds: set[str] = set()
            while kinds < {"snapshot", "update", "heartbeat"}:
                text = (await events.content.readuntil(b"\n\n")).decode()
                lines = dict(line.split(": ", 1) for line in text.strip().splitlines())
                if "event" in lines:
                    kinds.add(lines["event"])
                    schema = {"$ref": f"#/components/schemas/Sse{lines['event'].capitalize()}"}
                    check(HTTP, schema, orjson.loads(lines["data"]))
                stage.tick("SOL/USD", 15_000_000_000 + len(text))
    await stage.stop()


async def test_the_hubs_messages_are_as_described(stage: ChartsStage) -> None:
    async with connect(stage.hub.url, subprotocols=["oraclehub.v1"], proxy=None) as socket:  # type: ignore[list-item]
        request = {"type": "subscribe", "id": 1, "feeds": ["*"], "detail": "full"}
        check(STREAMS, payload("prices", "client", request), request)
        await socket.send(orjson.dumps(request).decode())
        seen: set[str] = set()
        while seen < {"hello", "subscribed", "snapshot", "update", "heartbeat"}:
            message = orjson.loads(await socket.recv())
            check(STREAMS, payload("prices", "server", message), message)
            seen.add(message["type"])
            if message["type"] == "snapshot":
                stage.tick("SOL/USD", 15_000_000_777)
                stage.hub.server.heartbeat()
    await stage.stop()
