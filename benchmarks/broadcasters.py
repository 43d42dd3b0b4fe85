"""The servers whose fan-out is compared, each at its best settings, in a process of its own.

All of them send the same bytes to all their clients when they are told to, and say what processor and wall time it took
from the first byte to the last one handed to the kernel. None compresses, none pings while it is measured.
"""

import asyncio
import gc
import itertools
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import msgspec
import picows
import uvicorn
import uvloop
from aiohttp import web
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.wire import raise_file_limit, settle
from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.server import http
from oracle_hub.server.frames import text_frame
from oracle_hub.server.service import ServerSettings, SignedQuery
from oracle_hub.stream.board import Board
from oracle_hub.stream.history import History
from oracle_hub.stream.session import Session

EPOCH = 1_790_000_000
FIRST_SEQ = 1_000_000
NO_HEARTBEAT_MS = 3_600_000
OURS, OURS_LIVE, PEER = "oracle-hub", "oracle-hub as run", "websockets.broadcast"
BARE_TIMER = "bare timer"
Round = Callable[[], Awaitable[None]]
Running: TypeAlias = tuple[int, Round, Callable[[], int]]
"""A server that serves: its port, what sends one message to all clients, and what counts them."""


def feeds(n_feeds: int) -> list[str]:
    return ["SOL/USD", *(f"F{number:02d}/USD" for number in range(1, n_feeds))]


def now_us() -> int:
    return time.time_ns() // 1000


def decision(feed: str, mantissa: int, at_us: int) -> Decision:
    return Decision(
        feed=feed,
        expo=-8,
        state=State.LIVE,
        rule=Rule.R1,
        reason=Reason.AGREED,
        source="doves",
        mantissa=mantissa,
        conf=None,
        publish_us=at_us - 1_500,
        decided_us=at_us,
        valid_until_us=at_us + 4_998_500,
        inputs=(),
    )


class Source:
    """A program behind our server that decides nothing: it has the next batch ready. Implements ``Service``."""

    instance = "6f1c2d3e-0000-4000-8000-000000000001"
    epoch = EPOCH
    first_epoch: int | None = None
    simulated: Mapping[str, Any] | None = None
    policy = "strict"
    config_hash = "c0ffee"
    limits: Mapping[str, Any] = {}

    def __init__(self, n_feeds: int) -> None:
        self.seq = FIRST_SEQ
        self._feeds = feeds(n_feeds)
        self._mantissa = 15_000_000_000
        self.decisions: Mapping[str, Decision] = {name: decision(name, 1, now_us()) for name in self._feeds}

    def now_us(self) -> int:
        return now_us()

    def current(self, now_us: int) -> bool:
        return True

    async def explain(self, feed: str) -> Mapping[str, Any] | None:
        return None

    async def signed(self, asked: SignedQuery) -> msgspec.Raw:
        return msgspec.Raw(b"null")

    async def parity(self) -> dict[str, object]:
        return {}

    async def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return True, {}

    async def metrics(self) -> bytes:
        return b""

    def next_batch(self, number: int | None = None) -> Batch:
        """All feeds at another price, or the one of this number."""
        self.seq += 1
        self._mantissa += 1
        at_us = now_us()
        names = self._feeds if number is None else self._feeds[number : number + 1]
        decisions = tuple(decision(name, self._mantissa, at_us) for name in names)
        return Batch(self.epoch, self.seq, at_us, self.config_hash, decisions)


def message(n_feeds: int, size: int | None) -> bytes:
    """What our server sends for a batch of so many feeds; with ``size``, cut to this frame size."""
    source = Source(n_feeds)
    board = Board(source.decisions, History(source.epoch, source.seq))
    session = Session(board)
    session.receive('{"type":"subscribe","feeds":["*"]}', 0, 0)
    payload = session.publish(board.apply(source.next_batch(), now_us()), 0)
    return payload if size is None else payload[: size - 4]


def _cut(size: int | None) -> Callable[[bytes], bytes]:
    """Framing that cuts long messages, so that ours can be measured at another size than its own."""
    if size is None:
        return text_frame
    return lambda payload: text_frame(payload[: size - 4] if payload.startswith(b'{"type":"update"') else payload)


async def _ours(n_feeds: int, size: int | None) -> Running:
    source = Source(n_feeds)
    vars(http)["text_frame"] = _cut(size)
    settings = ServerSettings(
        port=0, heartbeat_ms=NO_HEARTBEAT_MS, ping_interval_ms=NO_HEARTBEAT_MS, max_clients_per_ip=20_000
    )
    server = http.Server(source, settings)
    _, port = await server.start()

    async def publish() -> None:
        server.publish(source.next_batch())

    return port, publish, lambda: server.clients


async def _live(n_feeds: int, n_changing: int, heartbeat_ms: int | None) -> Running:
    """Our server as it is run; a round is one new price, of the first ``n_changing`` feeds in turn."""
    source = Source(n_feeds)
    settings = ServerSettings(
        port=0,
        heartbeat_ms=heartbeat_ms or NO_HEARTBEAT_MS,
        ping_interval_ms=NO_HEARTBEAT_MS,  # the sink answers none
        max_clients_per_ip=20_000,
    )
    server = http.Server(source, settings)
    _, port = await server.start()
    turns = itertools.cycle(range(n_changing))

    async def publish() -> None:
        server.publish(source.next_batch(next(turns)))

    return port, publish, lambda: server.clients


async def _bare_timer(interval_ms: int) -> Running:
    """No server at all: an event loop that wakes at a pace and does nothing."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        loop.call_later(interval_ms / 1_000, wake)

    wake()

    async def publish() -> None:
        pass

    return 0, publish, lambda: 0


async def _websockets(n_feeds: int, size: int | None) -> Running:
    connections: set[ServerConnection] = set()
    text = message(n_feeds, size).decode()

    async def handle(connection: ServerConnection) -> None:
        if connection.request is not None and connection.request.path == "/":
            connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    server = await serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=1024)
    port = next(iter(server.sockets)).getsockname()[1]

    async def publish() -> None:
        broadcast(connections, stamped(text))

    return port, publish, lambda: len(connections)


async def _aiohttp(n_feeds: int, size: int | None) -> Running:
    connections: set[web.WebSocketResponse] = set()
    text = message(n_feeds, size).decode()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        if request.path == "/":
            connections.add(ws)
        try:
            async for _ in ws:
                pass
        finally:
            connections.discard(ws)
        return ws

    app = web.Application()
    app.router.add_get("/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()

    async def publish() -> None:
        sent = stamped(text)
        for ws in connections:
            await ws.send_str(sent)

    return site.port, publish, lambda: len(connections)


def stamped(text: str) -> str:
    """The text with the time of now in ``sent_us``."""
    head, found, tail = text.partition('"sent_us":')
    return f"{head}{found}{now_us():016d}{tail[16:]}" if found else text


async def _picows(n_feeds: int, size: int | None) -> Running:
    connections: set[picows.WSTransport] = set()
    text = message(n_feeds, size).decode()

    class Listener(picows.WSListener):
        def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
            connections.discard(transport)

        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            if transport.request.path == b"/":
                connections.add(transport)

    server = await picows.ws_create_server(lambda _: Listener(), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]

    async def publish() -> None:
        sent = stamped(text).encode()
        for transport in connections:
            transport.send(picows.WSMsgType.TEXT, sent)

    return port, publish, lambda: len(connections)


async def _starlette(n_feeds: int, size: int | None) -> Running:
    connections: set[WebSocket] = set()
    text = message(n_feeds, size).decode()

    async def handle(ws: WebSocket) -> None:
        await ws.accept()
        if ws.url.path == "/":
            connections.add(ws)
        try:
            while (await ws.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            connections.discard(ws)

    app = Starlette(routes=[WebSocketRoute("/{rest:path}", handle)])
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", ws="websockets-sansio", http="httptools", ws_ping_interval=None,
        ws_per_message_deflate=False, access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve([sock]))
    while not server.started:  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0.01)

    async def publish() -> None:
        assert not serving.done()
        sent = stamped(text)
        for ws in connections:
            await ws.send_text(sent)

    return sock.getsockname()[1], publish, lambda: len(connections)


SERVERS: Mapping[str, Callable[..., Awaitable[Running]]] = {
    OURS: _ours,
    PEER: _websockets,
    "aiohttp send_str": _aiohttp,
    "picows": _picows,
    "starlette/uvicorn": _starlette,
}
LIVE: Mapping[str, Callable[..., Awaitable[Running]]] = {OURS_LIVE: _live, BARE_TIMER: _bare_timer}
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "picows": uvloop.new_event_loop,
    "starlette/uvicorn": uvloop.new_event_loop,
}
"""What is faster on another event loop than asyncio's own."""


class Told(msgspec.Struct, frozen=True):
    """One answer of a broadcaster: time of the rounds, and of everything it did meanwhile; how large its process is."""

    cpu_ns: int
    wall_ns: int
    resident_bytes: int
    process_ns: int
    """Processor time of the whole process, the pauses between rounds included."""
    kernel_ns: int
    """The part of it spent in the kernel, as the system tells them apart."""


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def serve_rounds(pipe: Connection, name: str, *arguments: Any) -> None:
    """A process: send the port, then for every number received do so many rounds at that pace, until None comes.

    A number is ``(rounds, interval_s)``; between rounds the loop goes on serving. No rounds: serve for that long.
    """
    raise_file_limit(25_000)
    settle(0, reads=False)
    with asyncio.Runner(loop_factory=LOOPS.get(name)) as runner:
        runner.run(_serve_rounds(pipe, name, *arguments))


async def _serve_rounds(pipe: Connection, name: str, *arguments: Any) -> None:
    port, publish, count = await {**SERVERS, **LIVE}[name](*arguments)
    pipe.send(port)
    asked = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), asked.set)
    frozen_for = 0
    while True:
        await asked.wait()
        asked.clear()
        while pipe.poll():
            command = pipe.recv()
            if command is None:
                return
            if count() != frozen_for:
                gc.collect()
                gc.freeze()  # as a server does that has started: every one of them gets this
                frozen_for = count()
            pipe.send(await _rounds(publish, *command))


async def _rounds(publish: Round, n_rounds: int, interval_s: float) -> Told:
    loop = asyncio.get_running_loop()
    cpu_ns = wall_ns = 0
    process_ns, kernel_s = time.process_time_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
    due_s = loop.time()
    if not n_rounds:
        await asyncio.sleep(interval_s)
    for _ in range(n_rounds):
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        await publish()
        cpu_ns += time.thread_time_ns() - cpu
        wall_ns += time.perf_counter_ns() - wall
        due_s += interval_s
        await asyncio.sleep(max(0.0, due_s - loop.time()))
    process_ns = time.process_time_ns() - process_ns
    kernel_s = resource.getrusage(resource.RUSAGE_SELF).ru_stime - kernel_s
    return Told(cpu_ns, wall_ns, resident_bytes(), process_ns, int(kernel_s * 1e9))


def version_note() -> str:
    """Of the peers, for a report."""
    peers = ("websockets", "aiohttp", "picows", "starlette", "uvicorn", "uvloop")
    return ", ".join(f"{name} {version(name)}" for name in peers) + "."
