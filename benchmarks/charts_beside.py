"""What keepers notice of a hundred charts that page through two years: nothing, since the hub does none of it.

Our server sends to a thousand keepers. Rounds in which nobody looks at charts, and rounds in which a hundred chart
clients page back through two years of minutes at a charts process, take turns on the same server. The charts process
follows that server as a subscriber, and yields to it (``nice``) as the one that ``oracle-hub run`` starts does. The
chart clients run at the lowest priority: they stand for other machines.
"""

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import msgspec
import orjson

from benchmarks import broadcasters, charts_pages, wire
from benchmarks.broadcasters import OURS
from benchmarks.fanout import broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, main, progress
from oracle_hub.cli.charts import COMPANION_NICENESS

N_KEEPERS = 1_000
N_CHARTS = 100
PER_SECOND = 100
MINUTES = 2 * charts_pages.YEAR
LOWEST = 19


class Setting(msgspec.Struct, frozen=True):
    """How much of it."""

    n_keepers: int = N_KEEPERS
    n_charts: int = N_CHARTS
    minutes: int = MINUTES
    seconds: float = 5.0


async def _page_for_ever(pipe: Connection, url: str, to_s: int, n_charts: int) -> None:
    """Every client pages back from now, and begins again when it came to the beginning."""
    pages = 0
    served = asyncio.Event()

    async def one(http: aiohttp.ClientSession) -> None:
        nonlocal pages
        at_s = to_s
        while True:
            query = f"symbol=Crypto.{charts_pages.FEED}&resolution=1&from=0&to={at_s}&countback={charts_pages.PAGE}"
            async with http.get(f"{url}/udf/history?{query}") as response:
                page = orjson.loads(await response.read())
            pages += 1
            served.set()
            at_s = page["t"][0] if page["s"] == "ok" else to_s

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tasks = [asyncio.create_task(one(http)) for _ in range(n_charts)]
        first = asyncio.create_task(served.wait())  # a busy machine may give them nothing in a short round
        await asyncio.wait([first, *tasks], return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        pipe.send("paging")
        await asyncio.to_thread(pipe.recv)
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pipe.send((pages, len(failed)))


def page_for_ever(pipe: Connection, url: str, to_s: int, n_charts: int) -> None:
    """A process of chart clients: says when they are at it, and how many pages they got when it is told to end."""
    os.nice(LOWEST)
    asyncio.run(_page_for_ever(pipe, url, to_s, n_charts))


def charts_process(path: Path, pipe: Connection, hub: str) -> None:
    """The charts process as ``oracle-hub run`` starts it."""
    os.nice(COMPANION_NICENESS)
    charts_pages.serve(path, pipe, hub)


@contextlib.contextmanager
def process(target: object, *arguments: object) -> Iterator[Connection]:
    """A process of ours that talks over a pipe, and is ended."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    started = context.Process(target=target, args=tuple(theirs if one is ... else one for one in arguments))  # type: ignore[arg-type]
    started.start()
    theirs.close()
    try:
        yield ours
    finally:
        with contextlib.suppress(OSError):
            ours.send("end")
        started.join(10)
        if started.is_alive():
            started.terminate()
            started.join()
        ours.close()


def measure(folder: Path, repetitions: int, setting: Setting) -> Report:
    """Rounds without and with charts, in turns."""
    path = folder / "bars.sqlite"
    progress("charts_beside: writing two years of minutes")
    to_s = charts_pages.fill(path, setting.minutes)
    programs = wire.build(folder)
    n_batches, interval_s = int(PER_SECOND * setting.seconds), 1 / PER_SECOND
    alone: list[wire.SinkCounts] = []
    beside: list[wire.SinkCounts] = []
    pages = 0
    with (
        broadcaster(OURS, 1, None) as (ask, port),
        sink_of(programs, OURS, port, setting.n_keepers, acks=False) as sink,
        process(charts_process, path, ..., f"ws://127.0.0.1:{port}/v1/stream") as charts,
    ):
        url = charts.recv()
        ask((PER_SECOND // 4, interval_s))
        for number in range(repetitions):
            progress(f"charts_beside: {number + 1} of {repetitions}")
            sink.lap()
            ask((n_batches, interval_s))
            alone.append(sink.lap())
            with process(page_for_ever, ..., url, to_s, setting.n_charts) as clients:
                clients.recv()
                sink.lap()
                ask((n_batches, interval_s))
                beside.append(sink.lap())
                clients.send("enough")
                got, failed = clients.recv()
                if failed:
                    raise SystemExit(f"charts_beside: {failed} chart clients failed")
                pages += got
    ratios = [b.p99_us / max(1, a.p99_us) for b, a in zip(beside, alone, strict=True)]
    noise = [b.p99_us / max(1, a.p99_us) for b, a in zip(alone[1:], alone[:-1], strict=True)] or [1.0]
    figures = (
        Figure("keepers_p99_ratio", statistics.median(ratios), "times"),
        Figure("keepers_p99_noise", statistics.median(noise), "times"),
        Figure("chart_pages_per_second", pages / repetitions / setting.seconds, "1/s"),
    )
    rows = [
        (name, statistics.median(one.p50_us for one in rounds), statistics.median(one.p99_us for one in rounds))
        for name, rounds in (("nobody looks at charts", alone), (f"{setting.n_charts} page back", beside))
    ]
    notes = (
        f"{setting.n_keepers:,} keepers, {PER_SECOND} batches a second, {setting.seconds:g} s a round, {repetitions} "
        f"rounds of each kind in turns; {setting.minutes:,} bars, {charts_pages.PAGE:,} a page.",
        "keepers_p99_noise: of a round without charts to the last one without: what the ratio would be by chance.",
        broadcasters.version_note(),
    )
    return Report("charts_beside", figures, (Table("Keepers", ("", "p50 us", "p99 us"), tuple(rows)),), notes)


def run(repetitions: int, *, setting: Setting | None = None) -> Report:
    """Measure in a folder of its own."""
    wire.raise_file_limit(25_000)
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), repetitions, setting or Setting())


if __name__ == "__main__":
    sys.exit(main("charts_beside", "A hundred charts beside a thousand keepers.", run, repetitions=5))
