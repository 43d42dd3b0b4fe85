"""From the bytes of an account notification to the batch written to every subscriber: what each part takes.

One process is the hub as it is run (link, engine, journal on disk, server) without the socket that a notification
comes from: its bytes are handed to the link, and what the program does then is its own. Stamps are taken between its
parts. In the same process a bare relay writes a ready frame of the same size to as many subscribers, and
`websockets.broadcast` sends a dictionary as JSON. The three take turns, each with a C program of its own that reads.
"""

import asyncio
import gc
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks import broadcasters, chain, ingest, wire
from benchmarks.fanout import SUBSCRIBE
from benchmarks.report import Figure, Report, Table, Value, main, progress
from feeds.addresses import ASSETS
from oracle_hub.app.pump import Pump
from oracle_hub.clock import AnchoredClock, SystemClock
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch
from oracle_hub.core.source import Frame
from oracle_hub.metrics import Latencies
from oracle_hub.server.frames import text_frame
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings

CLIENTS = (1, 50, 1_000)
N_MESSAGES = 200
N_DROPPED = 20
INTERVAL_S = 0.004
FEED = "SOL/USD"
CONFIG = ingest.CONFIG.replace('kind = "', 'max_age_ms = 60_000\nkind = "')
PARTS = ("decode", "turn", "decide", "journal", "encode", "write")
"""*decode*: frame to the journal's buffer and to the table. *turn*: until the end of the loop's turn. *decide*: the
batch. *journal*: digest, step mark and one write. *encode*: board, history, frame. *write*: all subscribers."""

Round: TypeAlias = dict[str, float]
"""Microseconds by part, and ``first`` and ``last``: until the batch was written to the first and the last subscriber;
``relay`` and ``broadcast``."""


class HubService(broadcasters.Source):
    """What the server asks of a hub that is in an engine."""

    def __init__(self, pump: Pump) -> None:
        super().__init__(1)
        hub = pump.engine.hub
        self.epoch, self.seq, self.decisions = hub.epoch, hub.seq, dict(hub.decisions)
        self._pump = pump

    def now_us(self) -> int:
        return self._pump.clock.now_us()


class Hub:
    """The program between link and subscribers, with stamps between its parts."""

    def __init__(self, stack: ExitStack) -> None:
        self._slot = 10
        self._stamps: dict[str, int] = {}
        engine, subscriptions = ingest.fresh_engine(parse_config(CONFIG, origin="benchmark"), int(time.time()))
        self._subscription = subscriptions[ASSETS[FEED].edge]
        self._link = engine.lineup.links[ingest.LINK]
        self._pump = Pump(
            engine,
            AnchoredClock(SystemClock()),
            journal=ingest.open_journal(stack),
            journal_required=False,
            publish=self._publish,
            latencies=Latencies(),
        )
        settings = ServerSettings(port=0, ping_interval_ms=broadcasters.NO_HEARTBEAT_MS, max_clients_per_ip=20_000)
        self.server = Server(HubService(self._pump), settings)
        subscribers = self.server.load()
        self._wrap(engine, "decide", "turn", "decide")
        self._wrap(self._pump, "_commit", None, "journal")
        self._wrap(subscribers, "_write_row", "encode", None)
        stack.callback(self._pump.stop)

    def _wrap(self, part: object, name: str, before: str | None, after: str | None) -> None:
        call: Callable[..., Any] = getattr(part, name)

        def stamped(*arguments: Any, **more: Any) -> Any:
            if before is not None:
                self._stamps[before] = time.perf_counter_ns()
            result = call(*arguments, **more)
            if after is not None:
                self._stamps[after] = time.perf_counter_ns()
            return result

        vars(part)[name] = stamped

    def _publish(self, batch: Batch, journaled: bool) -> None:
        self.server.publish(batch, journaled=journaled)
        self._stamps["write"] = time.perf_counter_ns()

    def notification(self) -> bytes:
        """The next price of SOL."""
        self._slot += 1
        price = chain.start_price(FEED) // 10_000 * 10_000 + self._slot
        account = chain.value(chain.EDGE, ASSETS[FEED], price, int(time.time()), self._slot)
        return chain.notification(self._subscription, self._slot, account)

    async def round(self, *, first: bool) -> Round:
        """One notification. ``first``: stamp the first write, which slows the others: then nothing else is told."""
        data, self._stamps = self.notification(), {}
        written: list[int] = []
        os_write = os.write

        def write(descriptor: int, frame: bytes) -> int:
            taken = os_write(descriptor, frame)
            if not written:
                written.append(time.perf_counter_ns())
            return taken

        started_ns = time.perf_counter_ns()
        self._pump.on_frame(self._link, Frame("websocket", data), self._pump.clock.now_us())
        self._stamps["decode"] = time.perf_counter_ns()
        if first:
            vars(os)["write"] = write
        try:
            while "write" not in self._stamps:  # noqa: ASYNC110 - one turn of the loop, as in the program
                await asyncio.sleep(0)
        finally:
            vars(os)["write"] = os_write
        if first:
            return {"first": (written[0] - started_ns) / 1e3}
        marks = [started_ns, *(self._stamps[part] for part in PARTS)]
        parts = {part: (b - a) / 1e3 for part, a, b in zip(PARTS, marks, marks[1:], strict=False)}
        return {**parts, "last": (marks[-1] - started_ns) / 1e3}


class Relay(asyncio.Protocol):
    """A server's side of a connection that is told what comes, as it comes."""

    def __init__(self, transports: list[asyncio.WriteTransport]) -> None:
        self._transports = transports
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and data.startswith(b"GET "):
            upgrade = b"Upgrade: websocket\r\nConnection: Upgrade"
            self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n\r\n")
            self._transports.append(self._transport)


class Others:
    """The bare relay, and the broadcast."""

    def __init__(self) -> None:
        self.transports: list[asyncio.WriteTransport] = []
        self.connections: set[ServerConnection] = set()
        self._frame = text_frame(broadcasters.message(1, None))
        self._message = json.loads(broadcasters.message(1, None))

    async def start(self) -> tuple[int, int]:
        """Both ports."""
        relay = await asyncio.get_running_loop().create_server(
            lambda: Relay(self.transports), "127.0.0.1", 0, backlog=1024
        )

        async def handle(connection: ServerConnection) -> None:
            self.connections.add(connection)
            await connection.wait_closed()
            self.connections.discard(connection)

        server = await serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=1024)
        return relay.sockets[0].getsockname()[1], next(iter(server.sockets)).getsockname()[1]

    def relay(self) -> float:
        """Microseconds."""
        started_ns = time.perf_counter_ns()
        for transport in self.transports:
            transport.write(self._frame)
        return (time.perf_counter_ns() - started_ns) / 1e3

    def broadcast(self) -> float:
        """Microseconds."""
        self._message["sent_us"] = broadcasters.now_us()
        started_ns = time.perf_counter_ns()
        broadcast(self.connections, json.dumps(self._message, separators=(",", ":")))
        return (time.perf_counter_ns() - started_ns) / 1e3


async def turns(pipe: Connection, hub: Hub, n_messages: int) -> list[Round]:
    """Start, tell the ports, wait until all subscribers are there, and let the three take turns."""
    others = Others()
    _, port = await hub.server.start()
    pipe.send((port, *await others.start()))
    while not pipe.poll():  # noqa: ASYNC110 - nothing is measured yet
        await asyncio.sleep(0.01)
    pipe.recv()
    gc.collect()
    gc.freeze()
    found: list[Round] = []
    for _ in range(N_DROPPED + n_messages):
        await asyncio.sleep(INTERVAL_S)
        one = await hub.round(first=False)
        await asyncio.sleep(INTERVAL_S)
        one |= await hub.round(first=True)
        await asyncio.sleep(INTERVAL_S)
        one["relay"] = others.relay()
        await asyncio.sleep(INTERVAL_S)
        one["broadcast"] = others.broadcast()
        found.append(one)
    await hub.server.stop("done")
    return found[N_DROPPED:]


def serve_turns(pipe: Connection, n_messages: int) -> None:
    """A process: send the ports, wait for a word, send what was found."""
    wire.raise_file_limit(25_000)
    wire.settle(0, reads=False)
    with ExitStack() as stack, asyncio.Runner() as runner:

        async def work() -> list[Round]:
            return await turns(pipe, Hub(stack), n_messages)

        pipe.send(runner.run(work()))


def measure(programs: wire.Programs, n_clients: int, n_messages: int) -> list[Round]:
    """One process with so many subscribers to each of the three."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve_turns, args=(theirs, n_messages), daemon=True)
    process.start()
    theirs.close()

    def answer() -> Any:
        try:
            if pipe.poll(60.0):
                return pipe.recv()
        except EOFError:
            pass
        raise SystemExit("tick_to_send: the hub ended or hangs")

    with ExitStack() as stack:
        stack.callback(pipe.close)
        stack.callback(process.join)
        stack.callback(process.terminate)
        ports: tuple[int, int, int] = answer()
        for port, path, request in zip(ports, ("/v1/stream", "/", "/"), (SUBSCRIBE, "", ""), strict=True):
            setup = 3 if request else 0
            sink = wire.Sink(programs, port, n_clients, setup=setup, path=path, request=request, acks=False)
            stack.callback(sink.end)
        pipe.send(None)
        rounds: list[Round] = answer()
        return rounds


def quantile(rounds: Sequence[Round], name: str, part: float) -> float:
    """Microseconds."""
    found = sorted(one[name] for one in rounds)
    return found[max(0, math.ceil(part * len(found)) - 1)]


NAMES = (*PARTS, "first", "last", "relay", "broadcast")


def run(repetitions: int, *, n_clients: Sequence[int] = CLIENTS, n_messages: int = N_MESSAGES) -> Report:
    wire.require_file_limit(3 * max(n_clients) + 100)
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for count in n_clients:
            runs = []
            for number in range(repetitions):
                runs.append(measure(programs, count, n_messages))
                progress(f"tick_to_send: {count} subscribers: run {number + 1} of {repetitions}")
            p50, p99 = (
                {name: statistics.median(quantile(one, name, part) for one in runs) for name in NAMES}
                for part in (0.5, 0.99)
            )
            rows += [(count, "p50", *p50.values()), (count, "p99", *p99.values())]
            publish = p50["encode"] + p50["write"]
            figures += [
                Figure(f"first_p50_{count}", p50["first"], "us"),
                Figure(f"last_p50_{count}", p50["last"], "us"),
                Figure(f"last_p99_{count}", p99["last"], "us"),
                Figure(f"publish_to_relay_{count}", publish / p50["relay"], "times"),
                Figure(f"publish_to_broadcast_{count}", publish / p50["broadcast"], "times"),
            ]
    notes = (
        f"{repetitions} runs of {n_messages} messages for each number of subscribers, {INTERVAL_S * 1e3:g} ms apart; "
        "medians over runs. Wall time, in one process; readers on another core.",
        "decode: bytes to journal's buffer and table; turn: to the end of the loop's turn; journal: one write; "
        "encode: board, history and frame; write: to all. first, last: from the bytes until its write is done.",
        "relay: a ready frame by transport.write to all; broadcast: json.dumps and websockets.broadcast; publish: "
        "encode and write.",
        broadcasters.version_note(),
    )
    table = Table("Microseconds from a notification's bytes", ("subscribers", "", *NAMES), tuple(rows))
    return Report("tick_to_send", tuple(figures), (table,), notes)


if __name__ == "__main__":
    sys.exit(main("tick_to_send", "From bytes to every subscriber's socket, part by part.", run, repetitions=3))
