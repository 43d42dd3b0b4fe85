"""A running server on a free port, over the real hub on a clock that is set by hand."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import yarl

from oracle_hub.core.hub import Batch
from oracle_hub.server.client import Client
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.websocket import Subscribers
from tests.patience import PATIENCE_S
from tests.server.stream_service import HubService


class Stage:
    """Service, server and one HTTP client."""

    def __init__(self) -> None:
        self.service = HubService("SOL/USD", "BTC/USD")
        self.settings = ServerSettings(port=0, heartbeat_ms=3_600_000, close_grace_ms=300)
        self.http = aiohttp.ClientSession()
        self._server: Server | None = None
        self.base = ""

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def subscribers(self) -> Subscribers:
        assert self.server._subscribers is not None
        return self.server._subscribers

    @property
    def clients(self) -> list[Client]:
        """Connected subscribers as the server knows them, in the order in which they came."""
        return list(self.subscribers._clients)

    async def start(self, **settings: Any) -> "Stage":
        """Start with these settings changed, and prices for both feeds published."""
        self.settings = msgspec.structs.replace(self.settings, **settings)
        self._server = Server(self.service, self.settings)
        host, port = await self._server.start()
        self.base = f"http://{host}:{port}"
        self.tick("SOL/USD", 15_000_000_000)
        self.tick("BTC/USD", 6_000_000_000_000)
        return self

    def tick(self, feed: str, mantissa: int, *sources: str) -> Batch:
        """A price, decided and published."""
        batch = self.service.tick(feed, mantissa, *sources)
        self.server.publish(batch)
        return batch

    async def get(self, path: str, **headers: str) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Status, body as JSON, and the response."""
        url = yarl.URL(self.base + path, encoded=True)
        async with self.http.get(url, headers=headers) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, msgspec.json.decode(body) if is_json else body, response

    async def connect(self, **headers: str) -> "Peer":
        """A subscriber that has read its hello."""
        ws = await self.http.ws_connect(
            f"{self.base}/v1/stream", protocols=("oraclehub.v1",), headers=headers, max_msg_size=0
        )
        peer = Peer(ws)
        peer.hello = await peer.read()
        return peer

    async def subscriber(self, *feeds: str, **options: Any) -> "Peer":
        """A subscriber that has read its snapshot."""
        peer = await self.connect()
        await peer.send(type="subscribe", feeds=list(feeds), **options)
        assert (await peer.read())["type"] == "subscribed"
        assert (await peer.read())["type"] == "snapshot"
        return peer


class Peer:
    """One websocket, spoken to in JSON."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.hello: dict[str, Any] = {}

    async def send(self, **message: Any) -> None:
        await self.ws.send_bytes(b"") if not message else await self.ws.send_str(msgspec.json.encode(message).decode())

    async def read(self) -> dict[str, Any]:
        """The next message; fails the test when the connection ends or nothing comes."""
        message: dict[str, Any] = msgspec.json.decode(await self.ws.receive_str(timeout=PATIENCE_S))
        return message

    def cut(self) -> None:
        """End the connection without a word."""
        connection = self.ws._response.connection
        assert connection is not None and connection.transport is not None
        connection.transport.abort()

    async def closed(self) -> int | None:
        """Read to the end and give the close code."""
        async for _ in self.ws:
            pass
        return self.ws.close_code


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Not started yet; stopped at the end."""
    stage = Stage()
    yield stage
    await stage.http.close()
    if stage._server is not None:
        await stage.server.stop("test is over")
