"""``oracle-hub import-bars FEED RESOLUTION``: history from a CSV file or a UDF server into the bars of charts."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import aiohttp
import orjson

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import parse_resolution
from oracle_hub.charts.store import Store, open_store
from oracle_hub.charts.transfer import Source, read_csv, read_udf, with_coarser
from oracle_hub.cli.moments import moment_us

DEFAULT_EXPO = -8
ROWS_PER_WRITE = 20_000
TIMEOUT_S = 60.0
MAX_SHOWN = 10
"""Names of feeds in one line."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Imported bars are marked, and never take the place of recorded ones. Every row is checked before the first is "
        "written. Coarser bars are derived from them."
    )
    parser.add_argument("feed", metavar="FEED", help="name of the feed at the hub, as in SOL/USD")
    parser.add_argument("resolution", metavar="RESOLUTION", help="1S 5S 15S 1 3 5 15 30 60 120 240 360 720 1D 1W 1M")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--csv", type=Path, metavar="FILE", help="a file with a header: time,open,high,low,close")
    origin.add_argument("--udf", metavar="URL", help="a UDF server, as charts are configured with it")
    parser.add_argument("--symbol", metavar="NAME", help="the server's name of the feed (default: FEED)")
    parser.add_argument("--from", dest="from_us", type=moment_us, default=0, metavar="WHEN", help="first bar (UTC)")
    parser.add_argument("--to", dest="to_us", type=moment_us, metavar="WHEN", help="end of the last bar (default: now)")
    parser.add_argument("--expo", type=int, choices=range(-18, 1), metavar="N", help="default: the feed's, or -8")
    parser.add_argument("--no-derive", action="store_true", help="import this resolution only")
    parser.add_argument("--database", required=True, type=Path, metavar="FILE", help="store of charts; made if absent")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace) -> int:
    resolution = parse_resolution(options.resolution)
    now_us = time.time_ns() // 1_000
    to_us = now_us if options.to_us is None else options.to_us
    known = _known_expo(options.database, options.feed)
    expo = options.expo if options.expo is not None else DEFAULT_EXPO if known is None else known
    source = Source(feed=options.feed, resolution=resolution, expo=expo, now_us=now_us)
    if options.csv is not None:
        bars = [bar for bar in read_csv(options.csv, source) if options.from_us <= bar.start_us < to_us]
    else:
        bars = asyncio.run(_fetch(options.udf, options.symbol or options.feed, source, options.from_us, to_us))
    every = bars if options.no_derive else with_coarser(bars)
    with open_store(options.database) as store:  # made only now, when there is something for it
        changed = _write(store, every)
    outcome = {"read": len(bars), "derived": len(every) - len(bars), "changed": changed, "kept": len(every) - changed}
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(outcome) + b"\n")
    else:
        print(
            f"{outcome['read']} bars read, {outcome['derived']} coarser ones derived: {changed} imported, "
            f"{outcome['kept']} as they were (recorded ones are never replaced)"
        )
    return 0


def _known_expo(database: Path, feed: str) -> int | None:
    """The feed's, where the store has it. A name that is new to a store with others is said: it may be misspelt."""
    if not database.exists():
        return None
    with open_store(database) as store:
        feeds = store.feeds()
        if feeds and feed not in feeds:
            shown = ", ".join(feeds[:MAX_SHOWN]) + (", …" if len(feeds) > MAX_SHOWN else "")
            print(f"{feed} is new to {database}, which has {shown}", file=sys.stderr)
        return store.expo(feed)


def _write(store: Store, bars: list[Bar]) -> int:
    """In pieces, so that a recorder need not wait for long. Coming again with the same changes nothing."""
    pieces = (bars[index : index + ROWS_PER_WRITE] for index in range(0, len(bars), ROWS_PER_WRITE))
    return sum(store.write(bars=piece).changed for piece in pieces)


async def _fetch(url: str, symbol: str, source: Source, from_us: int, to_us: int) -> list[Bar]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    pages: list[list[Bar]] = []
    async with aiohttp.ClientSession(timeout=timeout, headers={"Accept": "application/json"}) as session:
        async for page in read_udf(url, symbol, source, from_us, to_us, session):
            pages.append(page)
            if sys.stderr.isatty():
                print(f"\r{sum(map(len, pages))} bars", end="", file=sys.stderr, flush=True)
    return [bar for page in reversed(pages) for bar in page]
