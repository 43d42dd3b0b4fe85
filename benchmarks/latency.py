"""What the hub adds between two sockets: from a source's send to a subscriber's read, beside a bare relay.

Four processes on one machine: the source writes one account notification at a time; the hub decides on it, journals
and publishes; or the bare relay writes a ready frame of the same size; subscribers note when they read. Rounds of both
take turns, so that a disturbance of the machine falls on both alike.
"""

import asyncio
import contextlib
import math
import multiprocessing
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import msgspec

from benchmarks import chain, relay
from benchmarks.report import Figure, Report, Table, Value, main

N_MESSAGES = 300
N_DROPPED = 20
"""The first messages of a round are not counted: caches and clocks of the processor are cold."""
INTERVAL_S = 0.004
CLIENTS = (1, 50)
PATIENCE_S = 20.0
SUBSCRIBE = b'{"type":"subscribe","feeds":["%s"]}' % relay.FEED.encode()
PRICE = re.compile(rb'"type":"update".*"state":"live","price":"(\d+)"')

Messages: TypeAlias = list[tuple[int, bytes]]


class Spread(msgspec.Struct, frozen=True):
    """Latencies of one round, in microseconds."""

    p50: float
    p99: float
    lost: int
    """Messages that some subscriber did not get as one of its own: merged, or late by seconds."""


class Run(msgspec.Struct, frozen=True):
    """One round through what is measured, and one through what it is compared with."""

    beside: Spread
    measured: Spread


def spread(sent_ns: Sequence[int], read_ns: Sequence[dict[int, int]], dropped: int) -> Spread:
    """Compare stamps. ``read_ns`` holds for each subscriber when it read which message, counted from 0."""
    wanted = range(dropped, len(sent_ns))
    found = sorted((seen[n] - sent_ns[n]) / 1_000 for seen in read_ns for n in wanted if n in seen)
    if not found:
        raise SystemExit("latency: no message came through")
    return Spread(quantile(found, 0.5), quantile(found, 0.99), len(wanted) * len(read_ns) - len(found))


def quantile(ascending: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of all values does not exceed."""
    return ascending[max(0, math.ceil(part * len(ascending)) - 1)]


# Processes.


class Child:
    """A process of :mod:`benchmarks.relay`, and the pipe to it."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._name = target.__name__
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    async def receive(self) -> Any:
        """What it sends next; the first thing is its port."""
        return await asyncio.to_thread(self._receive, self._pipe)

    def _receive(self, pipe: Connection) -> Any:
        try:
            if pipe.poll(PATIENCE_S):
                return pipe.recv()
        except EOFError:
            pass
        raise SystemExit(f"latency: {self._name} ended or hangs")

    async def ask(self, command: object) -> Any:
        self._pipe.send(command)
        return await self.receive()

    def end(self) -> None:
        """Ask it to end; end it if it does not."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(3)
        self._pipe.close()


Start: TypeAlias = Callable[..., Awaitable[tuple[Child, int]]]
"""Starts a process by its function and arguments; gives it with its port as soon as it has told that."""


@contextlib.asynccontextmanager
async def children() -> AsyncIterator[Start]:
    """Processes that are ended in the reverse of their order, whatever happens."""
    started: list[Child] = []

    async def start(target: Callable[..., None], *arguments: object) -> tuple[Child, int]:
        child = Child(target, *arguments)
        started.append(child)
        return child, await child.receive()

    try:
        yield start
    finally:
        for child in reversed(started):
            await asyncio.to_thread(child.end)


@contextlib.asynccontextmanager
async def subscribers(port: int, count: int) -> AsyncIterator[list[relay.Subscriber]]:
    """So many subscribers, connected."""
    loop = asyncio.get_running_loop()
    found = [(await loop.create_connection(relay.Subscriber, "127.0.0.1", port))[1] for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            one.close()


async def wait_for(ready: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look until it is so."""
    try:
        async with asyncio.timeout(patience_s):
            while not ready():  # noqa: ASYNC110 - the subscribers' reads are not disturbed by events
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise SystemExit(f"latency: {what}: not within {patience_s:g} s") from None


async def subscribe(clients: Sequence[relay.Subscriber]) -> None:
    """Subscribe all at the hub and wait until the feed is live for each."""
    live = dict.fromkeys(clients, False)
    for client in clients:
        client.send(SUBSCRIBE)

    def all_live() -> bool:
        for client in clients:
            live[client] = live[client] or any(b'"state":"live"' in payload for _, payload in client.drain())
        return all(live.values())

    await wait_for(all_live, f"{relay.FEED} live for {len(clients)} subscribers")


# Rounds.


class Sizes(msgspec.Struct, frozen=True):
    """How much is sent."""

    n_messages: int = N_MESSAGES
    n_dropped: int = N_DROPPED
    interval_s: float = INTERVAL_S


def hub_numbers(messages: Messages, first: int) -> dict[int, int]:
    """Which notification each update came from, by its price, and when it was read."""
    seen: dict[int, int] = {}
    for read_ns, payload in messages:
        price = PRICE.search(payload)
        if price is not None:
            seen.setdefault(int(price[1]) - chain.start_price(relay.FEED) - first, read_ns)
    return seen


def relay_numbers(messages: Messages, first: int) -> dict[int, int]:
    """The relay hands on one message for each, in order."""
    return {number: read_ns for number, (read_ns, _) in enumerate(messages)}


Numbers: TypeAlias = Callable[[Messages, int], dict[int, int]]


async def one_round(
    source: Child, name: str, clients: Sequence[relay.Subscriber], numbers: Numbers, sizes: Sizes
) -> Spread:
    """Let the source send, and collect what every subscriber read."""
    for client in clients:
        client.drain()
    first, sent_ns = await source.ask((name, sizes.n_messages, sizes.interval_s))
    got: list[Messages] = [[] for _ in clients]
    last = len(sent_ns) - 1

    def all_there() -> bool:
        for client, messages in zip(clients, got, strict=True):
            messages.extend(client.drain())
        return all(last in numbers(messages, first) for messages in got)

    with contextlib.suppress(SystemExit):  # what is missing then is counted
        await wait_for(all_there, "the last message", 5.0)
    return spread(sent_ns, [numbers(messages, first) for messages in got], sizes.n_dropped)


async def update_size(source: Child, hub_port: int) -> int:
    """How long the hub's update is: what the relay writes shall be as long."""
    async with subscribers(hub_port, 1) as clients:
        await subscribe(clients)
        await source.ask(("hub", 3, 0.05))
        updates: list[int] = []

        def came() -> bool:
            updates.extend(len(payload) for _, payload in clients[0].drain() if b'"type":"update"' in payload)
            return bool(updates)

        await wait_for(came, "an update")
        return updates[0]


async def compare(repetitions: int, sizes: Sizes, n_clients: Sequence[int], directory: str) -> dict[int, list[Run]]:
    """All rounds through the relay and through the hub, by the number of subscribers."""
    runs: dict[int, list[Run]] = {count: [] for count in n_clients}
    async with children() as start:
        source, source_port = await start(relay.run_source)
        address = f"127.0.0.1:{source_port}"
        _, hub_port = await start(relay.run_hub, relay.hub_config(directory, address))
        size = await update_size(source, hub_port)
        _, relay_port = await start(relay.run_relay, address, size)
        for count in n_clients:
            for _ in range(repetitions):
                async with subscribers(relay_port, count) as clients:
                    bare = await one_round(source, "relay", clients, relay_numbers, sizes)
                async with subscribers(hub_port, count) as clients:
                    await subscribe(clients)
                    runs[count].append(Run(bare, await one_round(source, "hub", clients, hub_numbers, sizes)))
    return runs


def rows_of(runs: dict[int, list[Run]]) -> tuple[tuple[Value, ...], ...]:
    """A row for each round: percentiles of both, their ratio, and what was lost."""
    return tuple(
        (
            count,
            number,
            *(run.beside.p50, run.measured.p50, run.measured.p50 / run.beside.p50),
            *(run.beside.p99, run.measured.p99, run.measured.p99 / run.beside.p99),
            run.beside.lost + run.measured.lost,
        )
        for count, of in runs.items()
        for number, run in enumerate(of, 1)
    )


COLUMNS = ("clients", "run", "relay p50", "hub p50", "p50 ratio", "relay p99", "hub p99", "p99 ratio", "lost")


def figures_of(runs: dict[int, list[Run]]) -> list[Figure]:
    """Medians over runs; the ratio is the median of each run's own."""
    figures: list[Figure] = []
    for count, of in runs.items():
        suffix = "" if count == 1 else f"_{count}_clients"
        p50 = statistics.median(run.measured.p50 / run.beside.p50 for run in of)
        p99 = statistics.median(run.measured.p99 / run.beside.p99 for run in of)
        figures += [
            Figure(f"p50_ratio{suffix}", p50, "x", at_most=2.5 if count == 1 else None),
            Figure(f"p99_ratio{suffix}", p99, "x"),
            Figure(f"hub_p50{suffix}", statistics.median(run.measured.p50 for run in of), "us"),
            Figure(f"hub_p99{suffix}", statistics.median(run.measured.p99 for run in of), "us"),
            Figure(f"relay_p50{suffix}", statistics.median(run.beside.p50 for run in of), "us"),
            Figure(f"relay_p99{suffix}", statistics.median(run.beside.p99 for run in of), "us"),
        ]
    return figures


def run(repetitions: int, sizes: Sizes | None = None, n_clients: Sequence[int] = CLIENTS) -> Report:
    sizes = sizes or Sizes()
    with tempfile.TemporaryDirectory() as directory:
        runs = asyncio.run(compare(repetitions, sizes, n_clients, directory))
    notes = [
        f"A round: {sizes.n_messages} notifications, one each {sizes.interval_s * 1_000:g} ms; "
        f"the first {sizes.n_dropped} are not counted. Loopback, one clock (CLOCK_MONOTONIC).",
        "From the source's stamp just before its write to the subscriber's at the read. Figures: medians over runs.",
        "The hub journals, decides and publishes with its default settings; its feed is live from three sources.",
        "The relay reads with aiohttp and writes a ready frame as long as the hub's update. Lost: merged or missing.",
    ]
    table = Table("Microseconds from socket to socket", COLUMNS, rows_of(runs))
    return Report("latency", tuple(figures_of(runs)), (table,), tuple(notes))


if __name__ == "__main__":
    sys.exit(main("latency", "Time a price from the source's socket to a subscriber's.", run, repetitions=5))
