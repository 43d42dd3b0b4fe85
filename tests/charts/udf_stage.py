"""Bars for tests of UDF: a store in a folder of its own, and shapes that are checked by eye."""

from collections.abc import Iterable
from pathlib import Path

from oracle_hub.charts.bars import Bar
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store import Store, open_store

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
