"""Bars: what a year of minutes costs to read over HTTP, and what a thousand feeds cost to keep.

Reading: the charts process with one feed's year of one-minute bars, asked over a socket: a page of 5,000, and all of it
in such pages. Client and server share one process here, so a figure is more than the server's own share.

Keeping: processor time for each second of time, from the bytes of the stream's messages to rows in the file, with a
heartbeat every half second and a write every second.
"""

import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.report import Figure, Report, Table, main
from oracle_hub.app.charts import DOORS
from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Bar, Builder
from oracle_hub.charts.points import Point, point_from_entry
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US, Resolution
from oracle_hub.charts.settings import Settings
from oracle_hub.charts.store import Position, open_store
from oracle_hub.stream.messages import FeedEntry, Update, encode, feed_entry_decoder, server_message_decoder

FEED = "SOL/USD"
INSTANCE = "6f1c2d3e-0000-4000-8000-000000000001"
EPOCH = 1_790_000_000
BEGIN_US = 1_789_948_800 * SECOND_US
"""A Monday, 00:00 UTC."""
YEAR_MINUTES = 525_600
PAGE = 5_000
NOBODY = "ws://127.0.0.1:9/v1/stream"
"""The hub is not there: history is served all the same."""


class Read(msgspec.Struct, frozen=True):
    """Times of reading one door, in seconds."""

    door: str
    page_s: list[float]
    all_s: float
    all_bytes: int


# Reading.


def fill(path: Path, n_bars: int) -> None:
    """One feed's minutes, each with four different prices."""
    start_us = BEGIN_US - n_bars * MINUTE_US
    last = Point(
        FEED,
        INSTANCE,
        EPOCH,
        1,
        BEGIN_US,
        "live",
        14_500_000_000,
        -8,
        None,
        "doves",
        "R1",
        "agreed",
        BEGIN_US,
        BEGIN_US + 1,
    )
    with open_store(path) as store:
        for first in range(0, n_bars, 50_000):
            indices = range(first, min(first + 50_000, n_bars))
            store.write([last], [minute(start_us + index * MINUTE_US, index) for index in indices])
        store.write((), (), Position(INSTANCE, EPOCH, 1), watermark_us=BEGIN_US)


def minute(start_us: int, index: int) -> Bar:
    price = 14_500_000_000 + index * 7_919 % 100_000_000
    return Bar(FEED, Resolution.M1, start_us, price, price + 90_017, price - 80_021, price + 7, -8, 60, 0, 0)


async def fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        body = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{url}: {response.status} {body[:200]!r}")
        return body


def pages(url: str, n_bars: int) -> Iterator[str]:
    """Addresses of all pages, newest first."""
    to_s, step_s = BEGIN_US // SECOND_US, PAGE * 60
    for back in range(0, n_bars * 60, step_s):
        span = f"from={to_s - min(back + step_s, n_bars * 60)}&to={to_s - back}"
        yield f"{url}{span}"


async def read(path: Path, repetitions: int, n_bars: int) -> list[Read]:
    """Ask both doors for pages, and for all."""
    found = []
    settings = Settings(port=0)
    async with Charts(NOBODY, path, settings, doors=DOORS) as charts, aiohttp.ClientSession() as session:
        for door, start in (("/v1/bars", "/v1/bars/SOL-USD?"), ("/udf", "/udf/history?symbol=SOL/USD&")):
            urls = list(pages(f"{charts.url}{start}resolution=1&", n_bars))
            page_s = []
            for _ in range(repetitions):
                started = time.perf_counter()
                await fetch(session, urls[len(urls) // 2])
                page_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            size = 0
            for url in urls:
                size += len(await fetch(session, url))
            found.append(Read(door, page_s, time.perf_counter() - started, size))
    return found


# Keeping.


def messages(n_feeds: int, per_feed_hz: int, n_seconds: int) -> list[tuple[int, bytes]]:
    """What the stream says, by time: every feed in turn, as 20 batches a second."""
    told: list[tuple[int, bytes]] = []
    n_batches = 20
    per_batch = n_feeds * per_feed_hz // n_batches
    for seq in range(1, n_seconds * n_batches + 1):
        batch = seq - 1
        at_us = BEGIN_US + batch * SECOND_US // n_batches + 1
        entries = [
            msgspec.Raw(encode(entry(f"F{(batch * per_batch + index) % n_feeds:04d}/USD", at_us, seq + index)))
            for index in range(per_batch)
        ]
        update = Update(
            sub=1, epoch=EPOCH, seq=seq, prev_seq=seq - 1, sent_us=at_us, conflated=False, replayed=False, feeds=entries
        )
        told.append((at_us, encode(update)))
    return told


def entry(feed: str, at_us: int, step: int) -> FeedEntry:
    return FeedEntry(
        feed=feed,
        state="live",
        price=str(14_500_000_000 + step * 7_919 % 1_000_000),
        expo=-8,
        conf=None,
        source="doves",
        rule="R1",
        reason="agreed",
        publish_time_us=at_us - 150_000,
        decided_us=at_us,
        valid_until_us=at_us + 5 * SECOND_US,
    )


def keep(path: Path, told: list[tuple[int, bytes]], n_seconds: int) -> tuple[float, float, int]:
    """Processor seconds for each second of time: to make bars, and to write them; and the number of bars."""
    bars_s = store_s = 0.0
    n_bars = 0
    with open_store(path, recording=True) as store:
        builder = store.resume_builder(BEGIN_US)
        messages_left = iter(told)
        following = next(messages_left, None)
        for half in range(1, 2 * n_seconds + 1):
            now_us = BEGIN_US + half * SECOND_US // 2
            started = time.process_time()
            while following is not None and following[0] < now_us:
                take(builder, following[1])
                following = next(messages_left, None)
            builder.watermark(now_us)
            bars_s += time.process_time() - started
            if half % 2 == 0:
                started = time.process_time()
                harvest = builder.drain()
                store.write_harvest(harvest, Position(INSTANCE, EPOCH, half))
                builder.settle(harvest)
                store_s += time.process_time() - started
                n_bars += len(harvest.bars)
    return bars_s / n_seconds, store_s / n_seconds, n_bars


def take(builder: Builder, data: bytes) -> None:
    update = server_message_decoder.decode(data)
    assert isinstance(update, Update)
    for raw in update.feeds:
        builder.add(point_from_entry(feed_entry_decoder.decode(raw), INSTANCE, update.epoch, update.seq))


# All of it.


@contextlib.contextmanager
def hushed(*names: str) -> Iterator[None]:
    """Let these loggers say nothing meanwhile: that no hub is there is known."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def run(repetitions: int, n_bars: int = YEAR_MINUTES, n_feeds: int = 1_000, n_seconds: int = 30) -> Report:
    with tempfile.TemporaryDirectory() as directory, hushed("oracle_hub.charts", "oracle_hub.client"):
        year = Path(directory) / "year.sqlite"
        fill(year, n_bars)
        reads = asyncio.run(read(year, repetitions, n_bars))
        kept = []
        for hz in (1, 4):
            told = messages(n_feeds, hz, n_seconds)
            kept.append((hz, *keep(Path(directory) / f"live-{hz}.sqlite", told, n_seconds)))
        size = year.stat().st_size
    figures = [Figure(f"page_{one.door.rsplit('/')[-1]}", max(one.page_s) * 1e3, "ms", at_most=150.0) for one in reads]
    figures += [Figure(f"all_{one.door.rsplit('/')[-1]}", one.all_s, "s", at_most=3.0) for one in reads]
    figures += [
        Figure(f"keep_{hz}hz", (made + written) * 100, "% of a core", at_most=25.0) for hz, made, written, _ in kept
    ]
    figures.append(Figure("bytes_per_bar", size / n_bars, "bytes"))
    reading = Table(
        f"One feed, {n_bars:,} bars of a minute",
        ("door", "page median ms", "page max ms", "all s", "all MB"),
        tuple(
            (one.door, statistics.median(one.page_s) * 1e3, max(one.page_s) * 1e3, one.all_s, one.all_bytes / 1e6)
            for one in reads
        ),
    )
    keeping = Table(
        f"{n_feeds:,} feeds for {n_seconds} s",
        ("decisions per feed and second", "bars, % of a core", "store, % of a core", "bars"),
        tuple((hz, made * 100, written * 100, bars) for hz, made, written, bars in kept),
    )
    notes = (
        f"A page is {PAGE:,} bars. Client and server share a process: both ends of HTTP and JSON are in the figure.",
        "Keeping is processor time from the bytes of the stream's messages to committed rows, over time that went by.",
    )
    return Report("bars", tuple(figures), (reading, keeping), notes)


if __name__ == "__main__":
    sys.exit(main("bars", "Read a year of minutes; keep a thousand feeds.", run))
