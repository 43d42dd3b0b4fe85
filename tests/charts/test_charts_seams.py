"""Where imported history and a recording meet: the hour, day, week and month in which the recording begins."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from oracle_hub.charts.bars import Bar, Builder
from oracle_hub.charts.resolutions import SECOND_US, Resolution
from oracle_hub.charts.store import Store, open_store
from oracle_hub.charts.transfer import with_coarser
from tests.charts.plain_bars import BEGIN_US, FEED, MONDAY_THE_FIRST_US, point

MINUTE_US = 60 * SECOND_US
DAY_US = 1_440 * MINUTE_US
NOON_US = MONDAY_THE_FIRST_US + 720 * MINUTE_US
FOREVER_US = 2**62
COARSE = (Resolution.H12, Resolution.D1, Resolution.W1, Resolution.MO1)


class Shown(NamedTuple):
    """What matters of a bar."""

    open: int
    high: int
    low: int
    close: int
    updates: int
    imported: bool


def shown(bar: Bar) -> Shown:
    return Shown(bar.open, bar.high, bar.low, bar.close, bar.updates, bar.imported)


def minutes(from_us: int, to_us: int, price: int = 100) -> list[Bar]:
    """Somebody else's history, with everything that derives from it. The first minute is the lowest."""
    starts = range(from_us, to_us, MINUTE_US)
    told = [
        Bar(
            FEED,
            Resolution.M1,
            start_us,
            price,
            price + 1,
            price - 1 - (start_us == from_us),
            price,
            -8,
            1,
            0,
            0,
            imported=True,
        )
        for start_us in starts
    ]
    return with_coarser(told)


def recording(*, first: bool, until_us: int) -> Builder:
    """It begins half a minute after noon, with a price of 200, and one of 300 five minutes later."""
    builder = Builder(NOON_US + 30 * SECOND_US, first=first)
    for seq, (after_us, mantissa) in enumerate(((30 * SECOND_US, 200), (5 * MINUTE_US, 300)), 1):
        at_us = NOON_US + after_us
        if at_us < until_us:
            builder.add(point(at_us - BEGIN_US, mantissa, seq=seq))
    builder.watermark(until_us)
    return builder


def imported(store: Store) -> None:
    store.write(bars=minutes(MONDAY_THE_FIRST_US, NOON_US))


def recorded(store: Store, *, first: bool = False) -> None:
    store.write_harvest(recording(first=first, until_us=NOON_US + 40 * DAY_US).drain())


@pytest.mark.parametrize("first", [False, True], ids=["a gap before it", "nothing before it"])
@pytest.mark.parametrize("import_first", [False, True], ids=["recorded first", "imported first"])
def test_the_day_in_which_a_recording_begins_is_whole(tmp_path: Path, first: bool, import_first: bool) -> None:
    steps: list[Callable[[Store], object]] = [partial(recorded, first=first), imported]
    with open_store(tmp_path / "charts.sqlite") as store:
        for step in reversed(steps) if import_first else steps:
            step(store)
        for resolution in COARSE[1:]:
            (bar,) = store.bars(FEED, resolution, MONDAY_THE_FIRST_US, FOREVER_US)
            assert shown(bar) == Shown(100, 300, 98, 300, 722, True)
            assert bar.none_us == resolution.end_us(bar.start_us) - bar.start_us - 720 * MINUTE_US - 10 * SECOND_US
        morning, afternoon = store.bars(FEED, Resolution.H12, 0, FOREVER_US)
        assert (shown(morning), shown(afternoon)) == (
            Shown(100, 101, 98, 100, 720, True),
            Shown(200, 300, 200, 300, 2, False),
        )
        before = [store.bars(FEED, resolution, 0, FOREVER_US) for resolution in COARSE]
        for step in steps:  # coming again with the same changes nothing
            step(store)
        assert [store.bars(FEED, resolution, 0, FOREVER_US) for resolution in COARSE] == before


def test_what_a_completed_bar_was_before_is_kept(tmp_path: Path) -> None:
    with open_store(tmp_path / "charts.sqlite") as store:
        recorded(store)
        imported(store)
        told = store.revisions(FEED, Resolution.D1, MONDAY_THE_FIRST_US)
        assert [(bar.revision, bar.open, bar.imported) for bar in told] == [(0, 200, False), (1, 100, True)]


@pytest.mark.parametrize("first", [False, True])
def test_the_bars_of_now_go_on_after_an_import(tmp_path: Path, first: bool) -> None:
    """What derives from an import that ends now is no end of the hour, day, week or month."""
    now_us = NOON_US + 2 * MINUTE_US
    with open_store(tmp_path / "charts.sqlite") as store:
        store.builder = builder = recording(first=first, until_us=now_us)
        harvest = builder.drain()
        store.write_harvest(harvest)
        builder.settle(harvest)
        imported(store)
        for resolution in COARSE:
            bar = store.last_bars(FEED, resolution, FOREVER_US, 1)[0]
            assert (bar.closed, shown(bar)) == (False, Shown(200, 200, 200, 200, 1, False))
        builder = store.resume_builder(0)  # charts are started again: now they know the morning
        builder.add(point(NOON_US + 5 * MINUTE_US - BEGIN_US, 300, seq=2))
        for resolution in COARSE[1:]:
            bar = store.last_bars(FEED, resolution, FOREVER_US, 1)[0]
            assert (bar.closed, shown(bar)) == (False, Shown(100, 300, 98, 300, 722, False))
        builder.watermark(NOON_US + 40 * DAY_US)
        store.write_harvest(builder.drain())
        for resolution in COARSE[1:]:
            (bar,) = store.bars(FEED, resolution, MONDAY_THE_FIRST_US, FOREVER_US)
            assert (bar.closed, shown(bar)) == (True, Shown(100, 300, 98, 300, 722, True))


def test_what_is_imported_of_an_open_bucket_is_no_bar_of_it_while_there_is_no_price(tmp_path: Path) -> None:
    """Else it would stand there as final, and what comes after it were older than the last."""
    with open_store(tmp_path / "charts.sqlite") as store:
        store.write(bars=minutes(MONDAY_THE_FIRST_US - DAY_US, NOON_US))
        assert [len(store.last_bars(FEED, resolution, FOREVER_US, 2)) for resolution in COARSE] == [2, 2, 2, 2]
        store.builder = builder = Builder(NOON_US)
        builder.add(point(NOON_US - BEGIN_US, None, seq=1))
        builder.watermark(NOON_US + MINUTE_US)
        days = store.bars(FEED, Resolution.D1, 0, FOREVER_US)
        assert [bar.start_us for bar in days] == [MONDAY_THE_FIRST_US - DAY_US]
        assert store.last_bars(FEED, Resolution.D1, FOREVER_US, 1) == days
        assert len(store.last_bars(FEED, Resolution.H12, FOREVER_US, 9)) == 3  # the morning is over
        builder.add(point(NOON_US + 2 * MINUTE_US - BEGIN_US, 200, seq=2))
        builder.watermark(NOON_US + 3 * MINUTE_US)
        held, now = store.bars(FEED, Resolution.D1, 0, FOREVER_US)
        assert (held, now.closed, shown(now)) == (days[0], False, Shown(200, 200, 200, 200, 1, False))


@pytest.mark.parametrize("import_first", [False, True], ids=["recorded first", "imported first"])
def test_time_of_which_all_was_told_is_not_filled_by_others(tmp_path: Path, import_first: bool) -> None:
    """There was no price for ten minutes of an hour. Somebody else had one: its minutes are there, in no other bar."""
    hour_us = NOON_US + 60 * MINUTE_US
    builder = Builder(NOON_US, first=True)
    for seq, after_us in enumerate((0, 60 * MINUTE_US, 90 * MINUTE_US), 1):
        builder.add(point(NOON_US + after_us - BEGIN_US, 200 + seq, seq=seq))
    builder.watermark(NOON_US + DAY_US)
    told, others = builder.drain(), minutes(hour_us + 10 * MINUTE_US, hour_us + 20 * MINUTE_US)
    with open_store(tmp_path / "charts.sqlite") as store:
        if import_first:
            store.write(bars=others)
        store.write_harvest(told)
        store.write(bars=others)
        assert sum(bar.imported for bar in store.bars(FEED, Resolution.M1, hour_us, FOREVER_US)) == 10
        (bar,) = store.bars(FEED, Resolution.H1, hour_us, FOREVER_US)
        assert shown(bar) == Shown(202, 203, 202, 203, 2, False)


def test_a_whole_imported_day_is_not_replaced_by_half_a_recorded_one(tmp_path: Path) -> None:
    """There are no finer bars of it to be joined with."""
    day = Bar(FEED, Resolution.D1, MONDAY_THE_FIRST_US, 100, 150, 50, 120, -8, 1, 0, 0, imported=True)
    with open_store(tmp_path / "charts.sqlite") as store:
        store.write(bars=[day])
        recorded(store)
        assert store.bars(FEED, Resolution.D1, 0, FOREVER_US) == [day]
