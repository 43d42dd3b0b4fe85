"""Where imported history and a recording meet: coarser bars of both are folded from the finer ones that are stored.

A recording that begins at noon knows half a day; history imported up to noon knows the other half. Neither bar is the
day's. So whichever is written later, the bar in which a recording begins, or has a gap, is what its finer bars make,
whoever they are from. It is marked as imported, and as mixed. A bar of which everything was told stays as it is.

Works on a connection in the middle of a transaction. Finer bars are written before coarser ones.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import msgspec

from oracle_hub.charts.bars import Bar, part_of
from oracle_hub.charts.parts import Part
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.charts.store_schema import (
    BAR_COLUMNS,
    CODES,
    GAP_FLAG,
    IMPORTED_FLAG,
    MIXED_FLAG,
    PUT_FOLDED,
    PUT_IMPORTED,
    PUT_RECORDED,
    Row,
    bar_of,
    bar_row,
)

_ORDER = {resolution: place for place, resolution in enumerate(RESOLUTIONS)}
_BUCKET = "FROM bars WHERE feed_id = ? AND resolution = ? AND start_s >= ? AND start_s < ?"
_FLAGS = f"SELECT flags {_BUCKET}"
_CHILDREN = f"SELECT {BAR_COLUMNS} {_BUCKET} ORDER BY start_s"
RECORDED_BEFORE = (
    f"SELECT 1 FROM bars WHERE feed_id = ? AND resolution = ? AND start_s < ? AND NOT flags & {IMPORTED_FLAG} LIMIT 1"
)
"""Whether anything was recorded before a bucket: else the recording began in it, or has not begun."""


def put_bars(db: sqlite3.Connection, bars: Iterable[Bar], id_of: Callable[[str], int]) -> int:
    """Write bars, each folded from finer ones where it stands on a seam. Returns how many rows are new or others."""
    changed = 0
    for _, group in groupby(sorted(bars, key=lambda bar: _ORDER[bar.resolution]), key=lambda bar: bar.resolution):
        rows: dict[str, list[Row]] = {PUT_RECORDED: [], PUT_IMPORTED: [], PUT_FOLDED: []}
        for statement, row in _rows(db, group, id_of):
            rows[statement].append(row)
        changed += sum(db.executemany(statement, some).rowcount for statement, some in rows.items() if some)
    return changed


def _rows(db: sqlite3.Connection, bars: Iterable[Bar], id_of: Callable[[str], int]) -> Iterator[tuple[str, Row]]:
    for bar in bars:
        feed_id = id_of(bar.feed)
        folded = None if bar.resolution.parent is None else _folded(db, feed_id, bar, bar.resolution.parent)
        if folded is not None:
            yield PUT_FOLDED, folded
        else:
            yield PUT_IMPORTED if bar.imported else PUT_RECORDED, bar_row(feed_id, bar)


def _folded(db: sqlite3.Connection, feed_id: int, bar: Bar, parent: Resolution) -> Row | None:
    """The row of a bar that stands on a seam; None where it is whole as it is."""
    start_s, end_s = bar.start_us // SECOND_US, bar.resolution.end_us(bar.start_us) // SECOND_US
    held = None
    if bar.imported:
        found = db.execute(_FLAGS, (feed_id, CODES[bar.resolution], start_s, start_s + 1)).fetchone()
        held = None if found is None or found[0] & (IMPORTED_FLAG | MIXED_FLAG) == IMPORTED_FLAG else int(found[0])
        if held is None and not bar.gap:
            return None
    bucket = feed_id, CODES[parent], start_s, end_s
    flags = [row[0] for row in db.execute(_FLAGS, bucket)]
    if not any(flag & IMPORTED_FLAG for flag in flags):
        return None
    gap = bar.gap if held is None else bool(held & GAP_FLAG)  # who recorded it knows
    joined = held is not None and held & MIXED_FLAG
    if not (gap or joined) and db.execute(RECORDED_BEFORE, bucket[:3]).fetchone():
        return None  # everything of it was told: where it had no price, it had none
    part = Part()
    for row in db.execute(_CHILDREN, bucket):
        part.fold(bar.resolution, part_of(bar_of(bar.feed, parent, row)))
    mixed = any(flag & MIXED_FLAG or not flag & IMPORTED_FLAG for flag in flags)
    return bar_row(feed_id, _as_imported(bar, part, gap=gap), mixed=mixed)


def _as_imported(bar: Bar, part: Part, *, gap: bool) -> Bar:
    assert part.open is not None
    return msgspec.structs.replace(
        bar,
        open=part.open,
        high=part.high,
        low=part.low,
        close=part.close,
        expo=part.expo,
        updates=part.updates,
        degraded_us=part.degraded_us,
        none_us=part.end_us - part.start_us - part.priced_us,
        imported=True,
        gap=gap,
    )
