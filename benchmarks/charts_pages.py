"""A year of minutes through the charts' door: how long a page takes, and the whole year, from request to numbers.

Two processes: the charts process over a store with 525,600 bars of one feed, and a client that asks for pages by
countback, one after the other, as charts page back. Reading and printing alone are measured beside it.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import msgspec
import orjson

from benchmarks.report import Figure, Report, Table, main
from oracle_hub.app.charts import DOORS
from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.points import Point
from oracle_hub.charts.resolutions import MINUTE_US, SECOND_US, Resolution
from oracle_hub.charts.settings import Settings
from oracle_hub.charts.store import open_store
from oracle_hub.charts.udf_history import Asked, page_text, read_page

FEED = "SOL/USD"
YEAR = 525_600
PAGE = 5_000
NOBODY = "ws://127.0.0.1:9/v1/stream"
"""No hub is there: only history is served, of the feeds that the store knows."""
PATIENCE_S = 60.0


def fill(path: Path, minutes: int = YEAR) -> int:
    """Write a year of minutes that ended an hour ago; returns when it ended, in seconds."""
    end_us = time.time_ns() // 1_000 // MINUTE_US * MINUTE_US - 60 * MINUTE_US
    bars = []
    price = 15_000_000_000
    for minute in range(minutes):
        opening, price = price, price + (minute * 7_919 % 20_011 - 10_005) * 97
        high, low = max(opening, price) + minute % 1_013, min(opening, price) - minute % 997
        start_us = end_us - (minutes - minute) * MINUTE_US
        bars.append(Bar(FEED, Resolution.M1, start_us, opening, high, low, price, -8, 1, 0, 0, imported=True))
    last = Point(FEED, "benchmark", 1, 1, end_us, "none", None, -8, None, None, "R3", "too_few_sources", None, None)
    with open_store(path) as store:
        store.write([last], bars)
    return end_us // SECOND_US


def serve(path: Path, pipe: Connection, hub: str = NOBODY) -> None:
    """The charts process; says where it listens, and ends when anything is said to it."""
    logging.disable(logging.CRITICAL)

    async def run() -> None:
        async with Charts(hub, path, Settings(port=0), doors=DOORS) as charts:
            pipe.send(charts.url)
            await asyncio.to_thread(pipe.poll, None)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    """Where a charts process over this store listens."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(path, theirs), daemon=True)
    process.start()
    try:
        if not await asyncio.to_thread(ours.poll, PATIENCE_S):
            raise SystemExit("charts_pages: the charts process did not start")
        yield str(ours.recv())
    finally:
        with contextlib.suppress(OSError):
            ours.send("end")
        await asyncio.to_thread(process.join, PATIENCE_S)


class Walk(msgspec.Struct, frozen=True):
    """One walk through the year."""

    pages_ms: list[float]
    total_s: float


async def walk(http: aiohttp.ClientSession, url: str, to_s: int, count: int, minutes: int = YEAR) -> Walk:
    """Page back by countback until the door says that there is no more."""
    pages_ms: list[float] = []
    bars = 0
    began = time.perf_counter()
    while True:
        asked = time.perf_counter()
        query = f"symbol=Crypto.{FEED}&resolution=1&from=0&to={to_s}&countback={count}"
        async with http.get(f"{url}/udf/history?{query}") as response:
            page = orjson.loads(await response.read())
        if page["s"] != "ok":
            break
        pages_ms.append((time.perf_counter() - asked) * 1e3)
        bars += len(page["t"])
        to_s = page["t"][0]
    total_s = time.perf_counter() - began
    if page != {"s": "no_data"} or bars != minutes:
        raise SystemExit(f"charts_pages: {bars} bars instead of {minutes}, then {page}")
    return Walk(pages_ms, total_s)


def read_alone(path: Path, to_s: int) -> float:
    """Median time to read and to print one page with no socket between, in ms."""
    took_ms: list[float] = []
    with open_store(path) as store:
        for page in range(20):
            to_us = (to_s - page * PAGE * 60) * SECOND_US
            began = time.perf_counter()
            asked = Asked(resolution=Resolution.M1, from_us=0, to_us=to_us, countback=PAGE)
            page_text(read_page(store, FEED, asked, to_us, PAGE))
            took_ms.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took_ms)


async def _measure(path: Path, repetitions: int, minutes: int) -> Report:
    to_s = await asyncio.to_thread(fill, path, minutes)
    alone_ms = await asyncio.to_thread(read_alone, path, to_s)
    async with served(path) as url, aiohttp.ClientSession() as http:
        await walk(http, url, to_s, PAGE, minutes)
        walks = [await walk(http, url, to_s, PAGE, minutes) for _ in range(repetitions)]
        whole = [await walk(http, url, to_s, minutes, minutes) for _ in range(max(1, repetitions // 2))]
    pages_ms = sorted(ms for one in walks for ms in one.pages_ms)
    p50, p99 = statistics.median(pages_ms), pages_ms[len(pages_ms) * 99 // 100]
    year_s = statistics.median(one.total_s for one in walks)
    whole_s = statistics.median(one.total_s for one in whole)
    return Report(
        "charts_pages",
        (
            Figure("page_ms_p99", p99, "ms", at_most=150),
            Figure("year_in_pages_s", year_s, "s", at_most=3),
            Figure("year_in_one_answer_s", whole_s, "s", at_most=3),
        ),
        (
            Table(
                f"A page of {PAGE:,} bars of one minute, ms",
                ("read and printed", "over HTTP, p50", "p99", "worst"),
                ((alone_ms, p50, p99, pages_ms[-1]),),
            ),
        ),
        (f"{minutes:,} bars; a page is {PAGE:,}. Over HTTP: from the request to numbers, in a process of its own.",),
    )


def run(repetitions: int, minutes: int = YEAR) -> Report:
    """Measure over a store in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder) / "bars.sqlite", repetitions, minutes))


if __name__ == "__main__":
    raise SystemExit(main("charts_pages", "time a year of minutes through the charts' door", run, repetitions=5))
