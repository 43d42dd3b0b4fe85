"""The processes that latency is measured between: a source of account notifications, a bare relay, a hub, subscribers.

All of them stamp with the system's monotonic clock, which is one clock for all processes of a machine. The relay is
the least that a program between the two sockets can do on the same libraries: it takes a frame, looks at nothing, and
writes a frame that was made before.
"""

import asyncio
import base64
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from benchmarks import chain
from feeds.addresses import ASSETS

FEED = "SOL/USD"
SOURCES = {"edge": chain.EDGE, "chainlink": chain.STORE, "pyth": chain.RECEIVER}
KIND_AND_FEED = {kind.address(asset): (kind, feed) for feed, asset in ASSETS.items() for kind in SOURCES.values()}
HUB_CONFIG = """
[roles]
primary = "edge"
verifiers = ["chainlink", "pyth"]
{sources}
{feeds}
[hub]
warmup_ms = 2_000
[server]
port = 0
[state]
directory = "{directory}"
[solana]
cluster = "custom"
genesis_hash = "{genesis_hash}"
[[solana.rpc]]
name = "a"
http_url = "http://{address}/"
ws_url = "ws://{address}/hub"
"""


def hub_config(directory: str, address: str) -> str:
    """The hub's configuration: everything at its default, but the source at ``address`` (host:port) for a cluster."""
    return HUB_CONFIG.format(
        sources="\n".join(
            f'[sources.{name}]\nkind = "{kind.name}"\nmax_age_ms = 60_000' for name, kind in SOURCES.items()
        ),
        feeds="\n".join(f'[feeds."{feed}"]' for feed in chain.FEEDS),
        directory=directory,
        genesis_hash=chain.GENESIS_HASH,
        address=address,
    )


def text_frame(payload: bytes) -> bytes:
    """A server's websocket frame (RFC 6455, section 5.2): text, whole, not masked, shorter than 64 KiB."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return b"\x81" + length + payload


def stamp_ns() -> int:
    return time.monotonic_ns()


# The source.


class Node(ABC):
    """The HTTP half of a Solana node."""

    def __init__(self) -> None:
        self.slot = 400_000_000

    @abstractmethod
    def value(self, address: str) -> dict[str, object] | None:
        """An account as RPC tells it; None where there is none."""

    async def rpc(self, request: web.Request) -> web.Response:
        """``getGenesisHash`` and ``getMultipleAccounts``."""
        call = orjson.loads(await request.read())
        result: object = chain.GENESIS_HASH
        if call["method"] == "getMultipleAccounts":
            values = [self.value(address) for address in call["params"][0]]
            result = {"context": {"slot": self.slot}, "value": values}
        return web.Response(body=chain.reply(call["id"], result), content_type="application/json")


class Source(Node):
    """Fifteen accounts. Notifies of one of them when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, int] = {"hub": 0, "relay": 0}
        self.transports: dict[str, asyncio.WriteTransport] = {}
        self.subscription = 0

    def value(self, address: str) -> dict[str, object] | None:
        """An account as it stands: published now, at a price that only the hub's rounds move."""
        if address not in KIND_AND_FEED:
            return None
        kind, feed = KIND_AND_FEED[address]
        moved = self.sent["hub"] - 1 if feed == FEED and kind is chain.EDGE else -1
        return chain.value(kind, ASSETS[feed], chain.start_price(feed) + moved, int(time.time()), self.slot)

    async def pubsub(self, request: web.Request) -> web.WebSocketResponse:
        """Account subscriptions. Slot notifications are refused, as some nodes do, to keep them off the wire."""
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.WriteTransport)
        self.transports[request.match_info["name"]] = request.transport
        async for message in ws:
            call = orjson.loads(message.data)
            if call["method"] == "slotSubscribe":
                error = {"code": -32601, "message": "Method not found"}
                await ws.send_str(orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error}).decode())
                continue
            if call["params"][0] == ASSETS[FEED].edge:
                self.subscription = call["id"]
            await ws.send_str(chain.reply(call["id"], call["id"]).decode())
        return ws

    async def round(self, name: str, count: int, interval_s: float) -> tuple[int, list[int]]:
        """Send so many notifications, one at a time; return the number of the first one and all stamps (ns)."""
        transport, first, stamps = self.transports[name], self.sent[name], []
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for _ in range(count):
            self.sent[name] += 1
            self.slot += 1
            state = self.value(ASSETS[FEED].edge)
            assert state is not None
            frame = text_frame(chain.notification(self.subscription, self.slot, state))
            due_s += interval_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            stamps.append(stamp_ns())
            transport.write(frame)
        return first, stamps


def run_source(commands: Connection) -> None:
    """Process: serve, tell the port, and run a round for each ``(name, count, interval_s)`` until None comes."""

    async def serve() -> None:
        source = Source()
        app = web.Application()
        app.router.add_post("/", source.rpc)
        app.router.add_get("/{name}", source.pubsub)
        async with listening(app) as port:
            await obey(commands, port, lambda command: source.round(*command))

    run(serve())


# The relay.


def run_relay(commands: Connection, address: str, size: int) -> None:
    """Process: hand each frame of the source on to every subscriber, as a prebuilt message of ``size`` bytes."""
    frame = text_frame(b" " * size)
    transports: list[asyncio.WriteTransport] = []

    async def stream(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.WriteTransport)
        transports.append(transport)
        async for _ in ws:
            pass
        transports.remove(transport)
        return ws

    async def forward(ws: aiohttp.ClientWebSocketResponse) -> None:
        while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            for transport in transports:
                transport.write(frame)

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/v1/stream", stream)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://{address}/relay") as ws,
            listening(app) as port,
        ):
            forwarding = asyncio.create_task(forward(ws))
            await obey(commands, port, None)
            forwarding.cancel()

    run(serve())


# The hub.


def run_hub(commands: Connection, config: str) -> None:
    """Process: the whole program, as ``oracle-hub run`` has it."""
    from oracle_hub.app.run import Application  # the other processes do without it
    from oracle_hub.config import parse_config

    async def serve() -> None:
        async with Application(parse_config(config, origin="benchmark")) as application:
            await obey(commands, int(application.url.rpartition(":")[2]), None)

    run(serve())


# What the processes share.


def run(main: Coroutine[Any, Any, None]) -> None:
    """A process's main: ends quietly when the one that started it is interrupted."""
    try:
        asyncio.run(main)
    except (KeyboardInterrupt, EOFError):
        os._exit(1)


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[int]:
    """Serve on a free port of the loopback."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def obey(commands: Connection, port: int, act: Callable[[Any], Awaitable[object]] | None) -> None:
    """Tell the port, then carry commands out and send back what they give, until None comes or the pipe breaks."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(commands.fileno(), ready.set)
    commands.send(port)
    try:
        while True:
            await ready.wait()
            ready.clear()
            if not commands.poll():  # the reader called once more for what is already taken
                continue
            command = commands.recv()
            if command is None or act is None:
                return
            commands.send(await act(command))
    finally:
        loop.remove_reader(commands.fileno())


# Subscribers.


PING = re.compile(rb"\x89\x08(.{8})", re.DOTALL)
"""Of the hub, with the number of bytes before it. No text has such bytes."""


class Subscriber(asyncio.Protocol):
    """A websocket client that notes the time at a read, and says how far it has read where it is asked. All else that
    was read is taken apart afterwards."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._chunks: list[tuple[int, bytes]] = []
        self._rest = self._edge = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ("GET /v1/stream HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade")
        head = "\r\n".join((*lines, f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""))
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        self._chunks.append((stamp_ns(), data))
        self.answer(data)

    def answer(self, data: bytes) -> None:
        """Send back what asks how far it has read."""
        seen, end = self._edge + data, 0
        for ping in PING.finditer(seen):
            self.send(ping.group(1), 10)
            end = ping.end()
        self._edge = seen[max(end, len(seen) - 9) :]

    def send(self, payload: bytes, opcode: int = 1) -> None:
        """Send a short message. A mask of zeros is a mask: the payload stays as it is."""
        assert self._transport is not None and len(payload) < 126
        self._transport.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload)

    def drain(self) -> list[tuple[int, bytes]]:
        """Text messages since the last call, each with the time (ns) at which its last byte was read."""
        chunks, self._chunks = self._chunks, []
        messages: list[tuple[int, bytes]] = []
        for read_ns, chunk in chunks:
            self._rest += chunk
            for opcode, payload in self._frames():
                if opcode == 1:
                    messages.append((read_ns, payload))
                elif opcode == 9:
                    self.send(payload, 10)
        return messages

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        if not self._open:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"no websocket: {head.splitlines()[0].decode()}")
            self._open, self._rest = True, rest
        while len(self._rest) >= 2:
            size, start = self._rest[1], 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(self._rest[2:start], "big")
            if len(self._rest) < start + size:
                return
            opcode, payload = self._rest[0] & 15, self._rest[start : start + size]
            self._rest = self._rest[start + size :]
            yield opcode, payload

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
