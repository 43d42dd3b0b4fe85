"""How late a price ends: from the end of its lease to the hub's next decision, and to a subscriber's read.

A source publishes fifteen accounts at the beginning of every second, and then lets them age. The primary's max age is
the shortest and a verifier's is the next, so that each feed goes from its primary (R1) to the verifiers (R2) and to no
price (R3) with nothing arriving for it: what killing one source and killing two comes to, twice a second and feed.
Under load two further feeds are flooded, and fifty subscribers follow all five.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import msgspec
import orjson
from aiohttp import web

from benchmarks import chain, relay
from benchmarks.latency import Child, children, quantile, subscribers, wait_for
from benchmarks.report import Figure, Report, Table, Value, main
from feeds.addresses import ASSETS

MEASURED = ("SOL/USD", "BTC/USD", "ETH/USD")
FLOODED = ("USDC/USD", "USDT/USD")
FLOOD_PER_S = 5_000
BURST_S = 0.005
N_CLIENTS = 50
SECONDS_PER_REPETITION = 5
MAX_AGE_MS = {"edge": 150, "chainlink": 450, "pyth": 5_000}
"""Of the first measured feed. Each further one lives 70 ms longer, so that leases end one by one."""
SUBSCRIBE = b'{"type":"subscribe","feeds":["*"]}'


def hub_config(directory: str, address: str) -> str:
    """The hub's configuration: the defaults, but for short ages of the measured feeds."""
    text = relay.hub_config(directory, address)
    for position, feed in enumerate(MEASURED):
        ages = ", ".join(f"{source} = {ms + 70 * position}" for source, ms in MAX_AGE_MS.items())
        text = text.replace(f'[feeds."{feed}"]', f'[feeds."{feed}"]\nmax_age_ms = {{ {ages} }}')
    return text


# The source.


class Aging(relay.Node):
    """A node whose accounts are written once a second, all with that second's stamp; a flood may go on beside."""

    def __init__(self) -> None:
        super().__init__()
        self.timestamp = int(time.time())
        self.subscriptions: dict[str, int] = {}
        self.transport: asyncio.WriteTransport | None = None
        self.followed = asyncio.Event()
        """Every account has its subscription."""

    def value(self, address: str) -> dict[str, object] | None:
        """An account as it was written last."""
        if address not in relay.KIND_AND_FEED:
            return None
        kind, feed = relay.KIND_AND_FEED[address]
        moved = self.slot % 1_000 if kind is chain.EDGE else 0
        price = chain.start_price(feed) + moved
        return chain.value(kind, ASSETS[feed], price, self.timestamp, self.slot)

    async def pubsub(self, request: web.Request) -> web.WebSocketResponse:
        """Account subscriptions; the number of one is the id of its request."""
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.WriteTransport)
        self.transport = request.transport
        async for message in ws:
            call = orjson.loads(message.data)
            if call["method"] == "accountSubscribe":
                self.subscriptions[call["params"][0]] = call["id"]
                if len(self.subscriptions) == len(relay.KIND_AND_FEED):
                    self.followed.set()
            await ws.send_str(chain.reply(call["id"], call["id"]).decode())
        return ws

    def tell(self, address: str) -> bytes:
        """The frame of one notification."""
        state = self.value(address)
        assert state is not None
        return relay.text_frame(chain.notification(self.subscriptions[address], self.slot, state))

    async def round(self, n_seconds: int, flood_per_s: int) -> int:
        """Write all accounts at the beginning of so many seconds, and flood in between; how many notifications."""
        await self.followed.wait()
        assert self.transport is not None
        loop, sent = asyncio.get_running_loop(), 0
        flooded = [ASSETS[feed].edge for feed in FLOODED]
        begin = int(time.time()) + 1
        for second in range(begin, begin + n_seconds):
            while (left_s := second - time.time()) > 0:
                sent += self._flood(flooded, round(flood_per_s * BURST_S))
                await asyncio.sleep(min(left_s, BURST_S - loop.time() % BURST_S))
            self.timestamp = second
            self.slot += 1
            self.transport.write(b"".join(self.tell(address) for address in relay.KIND_AND_FEED))
            sent += len(relay.KIND_AND_FEED)
        await asyncio.sleep(1)  # the last leases end
        return sent

    def _flood(self, addresses: Sequence[str], count: int) -> int:
        assert self.transport is not None
        frames = []
        for number in range(count):
            self.slot += 1
            frames.append(self.tell(addresses[number % len(addresses)]))
        self.transport.write(b"".join(frames))
        return count


def run_source(commands: Connection) -> None:
    """Process: serve, tell the port, and run a round for each ``(n_seconds, flood_per_s)``."""

    async def serve() -> None:
        source = Aging()
        app = web.Application()
        app.router.add_post("/", source.rpc)
        app.router.add_get("/hub", source.pubsub)
        async with relay.listening(app) as port:
            await relay.obey(commands, port, lambda command: source.round(*command))

    relay.run(serve())


# The crowd.


def run_crowd(commands: Connection, port: int, count: int) -> None:
    """Process: so many subscribers to everything, who read and forget."""

    async def forget(clients: Sequence[relay.Subscriber]) -> None:
        while True:
            for client in clients:
                client.drain()  # answers pings too
                await asyncio.sleep(0.01)

    async def follow() -> None:
        async with subscribers(port, count) as clients:
            for client in clients:
                client.send(SUBSCRIBE)
            forgetting = asyncio.create_task(forget(clients))
            await relay.obey(commands, port, None)
            forgetting.cancel()

    relay.run(follow())


# What is measured.


class End(msgspec.Struct, frozen=True):
    """One end of a lease."""

    to_none: bool
    decided_us: int
    """From the end to the decision that follows it."""
    read_us: int
    """From the end to the read of the subscriber."""


class Watch:
    """Finds the ends of leases in what a subscriber reads. ``offset_us`` is wall time minus monotonic time."""

    def __init__(self, offset_us: int) -> None:
        self.ends: list[End] = []
        self.outlived = 0
        """Prices that were sent after their lease."""
        self.n_updates = 0
        self.n_sent = 0
        """Notifications that the source sent meanwhile."""
        self._offset_us = offset_us
        self._until_us: dict[str, int] = {}

    def take(self, read_ns: int, payload: bytes) -> None:
        message = orjson.loads(payload)
        if message["type"] not in ("snapshot", "update"):
            return
        self.n_updates += 1
        for entry in message["feeds"]:
            feed, until_us = entry["feed"], entry["valid_until_us"]
            if entry["price"] is not None and until_us is not None:
                self.outlived += until_us <= message["sent_us"]
            held_us = self._until_us.pop(feed, None)
            if feed in MEASURED and held_us is not None and entry["decided_us"] >= held_us:
                read_us = read_ns // 1_000 + self._offset_us - held_us
                self.ends.append(End(entry["price"] is None, entry["decided_us"] - held_us, read_us))
            if entry["price"] is not None and until_us is not None:
                self._until_us[feed] = until_us


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured."""

    n_repetitions: int
    n_seconds: int
    flood_per_s: int
    n_clients: int


async def measure(source: Child, client: relay.Subscriber, offset_us: int, sizes: Sizes, flood_per_s: int) -> Watch:
    """All repetitions under one load."""
    client.drain()
    watch = Watch(offset_us)
    for _ in range(sizes.n_repetitions):
        watch.n_sent += await source.ask((sizes.n_seconds, flood_per_s))
        for read_ns, payload in client.drain():
            watch.take(read_ns, payload)
    if not watch.ends:
        raise SystemExit("lease: no lease has ended")
    if watch.outlived:
        raise SystemExit(f"lease: {watch.outlived} prices were sent after their lease")
    return watch


async def compare(sizes: Sizes, directory: str) -> dict[str, Watch]:
    """Idle, then under load."""
    offset_us = min(time.time_ns() - time.monotonic_ns() for _ in range(100)) // 1_000
    async with children() as start:
        source, source_port = await start(run_source)
        _, hub_port = await start(relay.run_hub, hub_config(directory, f"127.0.0.1:{source_port}"))
        async with subscribers(hub_port, 1) as (client,):
            client.send(SUBSCRIBE)
            heard: list[bytes] = []

            def subscribed() -> bool:
                heard.extend(payload for _, payload in client.drain())
                return any(b'"state":"live"' in payload for payload in heard)

            await wait_for(subscribed, "a live price")
            idle = await measure(source, client, offset_us, sizes, 0)
            await start(run_crowd, hub_port, sizes.n_clients - 1)
            loaded = await measure(source, client, offset_us, sizes, sizes.flood_per_s)
    return {"idle": idle, "load": loaded}


def rows_of(watches: dict[str, Watch]) -> tuple[tuple[Value, ...], ...]:
    rows: list[tuple[Value, ...]] = []
    for name, watch in watches.items():
        for to_none in (False, True):
            ends = [end for end in watch.ends if end.to_none is to_none]
            if ends:
                decided = sorted(end.decided_us / 1_000 for end in ends)
                read = sorted(end.read_us / 1_000 for end in ends)
                spread = (*(quantile(decided, p) for p in (0.5, 0.99)), *(quantile(read, p) for p in (0.5, 0.99)))
                rows.append((name, "none" if to_none else "R2", len(ends), *spread, read[-1]))
    return tuple(rows)


def figures_of(watches: dict[str, Watch]) -> list[Figure]:
    """Bounds are on the read, which includes the decision."""
    figures: list[Figure] = []
    for name, at_most in (("idle", 5.0), ("load", 25.0)):
        decided = sorted(end.decided_us / 1_000 for end in watches[name].ends)
        read = sorted(end.read_us / 1_000 for end in watches[name].ends)
        figures += [
            Figure(f"decided_p50_{name}", quantile(decided, 0.5), "ms"),
            Figure(f"decided_p99_{name}", quantile(decided, 0.99), "ms", at_most=at_most),
            Figure(f"read_p50_{name}", quantile(read, 0.5), "ms"),
            Figure(f"read_p99_{name}", quantile(read, 0.99), "ms", at_most=at_most),
        ]
    load = watches["load"]
    figures.append(Figure("updates_read_under_load", float(load.n_updates), "updates"))
    figures.append(Figure("notifications_under_load", float(load.n_sent), "notifications"))
    return figures


def run(
    repetitions: int, n_seconds: int = SECONDS_PER_REPETITION, flood: int = FLOOD_PER_S, n_clients: int = N_CLIENTS
) -> Report:
    with tempfile.TemporaryDirectory() as directory:
        watches = asyncio.run(compare(Sizes(repetitions, n_seconds, flood, n_clients), directory))
    notes = [
        "Milliseconds after valid_until_us. Decided: on the hub's clock. Read: a subscriber's read, its wall clock.",
        f"Load: {flood:,} account notifications a second in bursts each {BURST_S * 1_000:g} ms, all of other prices, "
        f"to {n_clients} subscribers of all feeds. Both rounds journal with default settings.",
        "Other programs on the machine end up in the 99th percentiles: compare the load average above with the cores.",
    ]
    columns = ("round", "to", "ends", "decided p50", "decided p99", "read p50", "read p99", "read max")
    table = Table("Milliseconds after the end of a lease", columns, rows_of(watches))
    return Report("lease", tuple(figures_of(watches)), (table,), tuple(notes))


if __name__ == "__main__":
    sys.exit(main("lease", "Time the ends of leases, idle and under load.", run))
