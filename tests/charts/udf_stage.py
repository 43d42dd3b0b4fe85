"""Bars for tests of UDF: a store in a folder of its own, and shapes that are checked by eye."""

from collections.abc import Iterable
from pathlib import Path

from oracle_hub.charts.app import Charts
from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store import Store, open_store
from tests.client.client_stage import HubStage, turns_until

FEED = "SOL/USD"


def bar(start_s: int, prices: tuple[int, int, int, int], resolution: Resolution = Resolution.M1, **more: int) -> Bar:
    """A final bar of :data:`FEED` with open, high, low and close as mantissas."""
    opening, high, low, close = prices
    return Bar(FEED, resolution, start_s * SECOND_US, opening, high, low, close, more.get("expo", -8), 1, 0, 0)


def plain_bars(starts_s: Iterable[int], resolution: Resolution = Resolution.M1) -> list[Bar]:
    """Bars whose prices tell where they start."""
    return [
        bar(start, (base, base + 7, base - 7, base + 1), resolution)
        for start in starts_s
        for base in (10_000_000_000 + start % 1_000_000_007,)
    ]


def store_with(folder: Path, bars: Iterable[Bar]) -> Store:
    """A new store with these bars."""
    store = open_store(folder / "bars.sqlite")
    store.write(bars=list(bars))
    return store


def fill(folder: Path, bars: Iterable[Bar]) -> Path:
    """A database with these bars, for a charts process."""
    with store_with(folder, bars) as store:
        return store.path


async def open_minute(hub: HubStage, charts: Charts) -> None:
    """Time goes on and all prices hold, so that the last bar of each feed is there, and open."""
    for index, feed in enumerate(hub.service.decisions):
        hub.tick(feed, 15_000_000_000 + index)
    await turns_until(lambda: charts.live.position is not None and charts.live.position.seq == hub.service.seq)
